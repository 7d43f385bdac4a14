"""Backups without a database: folders with sound manifests, for tests of what surrounds them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mistudio_ops.domain.backup import (
    CheckpointFacts,
    DatabaseFacts,
    FileEntry,
    Manifest,
    StoredBackup,
    TableRows,
    new_id,
)
from mistudio_ops.drivers.archive_file import write_plain
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.operations.backup.checkpoints import CopiedCheckpoints, write_index
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import workplace_of

FACTS = DatabaseFacts("lab", "15.4", 15, 100_000_000, "lab", "UTF8", "C.UTF-8", "C.UTF-8", "0001")
BEGIN = datetime(2026, 3, 1, 3, tzinfo=UTC)


def manifest_of(
    number: int, files: tuple[FileEntry, ...], keys: Keys, facts: CheckpointFacts | None = None
) -> Manifest:
    """Return the manifest of the ``number``-th backup, a day after the one before."""
    created = BEGIN + timedelta(days=number)
    return Manifest(
        id=new_id(created, f"{number:08x}"), sequence=number, kind="scheduled", environment="lab", created=created,
        database=FACTS, tables=(TableRows("public", "filling", 1000 + number),), files=files,
        encryption=keys.encryption, versions={"mistudio": "0"}, seconds={"all": 1.5}, checkpoints=facts,
    )  # fmt: skip


def made(workplace: Workplace, number: int, copied: CopiedCheckpoints | None = None) -> StoredBackup:
    """Publish a backup whose database is a few bytes, with an index of checkpoints where some were copied."""
    workplace.directory.prepare()
    keys = workplace.keys(writing=True)
    manifest = manifest_of(number, (), keys, copied.facts if copied else None)
    with workplace.directory.partial(manifest.id) as folder:
        files = [write_plain(b"PGDMP", folder / "database.dump", "database")]
        if copied is not None:
            files += write_index(copied, folder, keys)
        workplace.directory.publish(replace(manifest, files=tuple(files)))
    return workplace.directory.get(manifest.id)


def file_workplace(folder: Path, **settings: object) -> Workplace:
    """Return a workplace whose database is never reached."""
    return workplace_of("postgresql+psycopg://nobody@127.0.0.1:1/lab", folder, **settings)  # type: ignore[arg-type]
