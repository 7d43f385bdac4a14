"""Backups without a database: the content of the dump is whatever a test wants it to be."""

import io
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import (
    CheckpointFacts,
    DatabaseFacts,
    Kind,
    Manifest,
    StoredBackup,
    TableRows,
    Verification,
    new_id,
)
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.archive_file import file_suffix, write_archive, write_plain
from mistudio_ops.drivers.checkpoint_objects import ObjectStore
from mistudio_ops.drivers.encryption import KEY_FILE
from mistudio_ops.operations.backup.checkpoints import CheckpointFile, CopiedCheckpoints, write_index
from mistudio_ops.operations.backup.transfer import Patience
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter

CREATED = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
#: Two quick attempts: what a test cuts once is mended, what it cuts always fails soon.
HASTY = Patience(attempts=2, wait=0.01, longest=0.01)
_FACTS = DatabaseFacts("mistudio", "15.4", 15, 1 << 20, "mistudio", "UTF8", "C", "C", "0007")


def workplace_at(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    name: str = "local",
    now: datetime = CREATED,
    **backup: Any,
) -> Workplace:
    """Return a workplace with a recording reporter; its backups are below ``folder``."""
    settings = BackupSettings(directory=folder / "backups", **backup)
    environment = Environment(name=name, state_dir=folder / "state", backup=settings)
    workplace = Workplace(environment, RecordingReporter(), dict(environ or {}), lambda: now)
    workplace.directory.prepare()
    return workplace


def reporter_of(workplace: Workplace) -> RecordingReporter:
    """Return what it was told."""
    assert isinstance(workplace.reporter, RecordingReporter)
    return workplace.reporter


def make_backup(
    workplace: Workplace,
    content: bytes = b"rows\n" * 1000,
    *,
    checkpoints: Mapping[str, bytes] | None = None,
    created: datetime = CREATED,
    kind: Kind = "manual",
    proven: bool = True,
) -> StoredBackup:
    """Publish a backup of ``content``; ``proven``: its hashes were compared, as every new backup's are."""
    directory, keys = workplace.directory, workplace.keys(writing=True)
    backup_id = new_id(created, secrets.token_hex(4))
    with directory.partial(backup_id) as folder:
        name = f"database.dump{file_suffix(keys.encryption)}"
        files = [write_archive(io.BytesIO(content), folder / name, "database", keys)]
        files.append(write_plain(b"[environments.local]\n", folder / "configuration.json", "configuration"))
        facts = None
        if checkpoints is not None:
            copied = _stored(workplace, checkpoints)
            files += write_index(copied, folder, keys)
            facts = copied.facts
        if keys.key_file is not None:
            files.append(write_plain(keys.key_file, folder / KEY_FILE, "key"))
        manifest = Manifest(
            id=backup_id, sequence=directory.next_sequence(), kind=kind, environment=workplace.environment.name,
            created=created, database=_FACTS, tables=(TableRows("public", "trainings", 3),), files=tuple(files),
            encryption=keys.encryption, versions={"pg_dump": "15.4"}, checkpoints=facts,
        )  # fmt: skip
        directory.publish(manifest)
    if proven:
        return directory.record(backup_id, Verification("hash", created, ok=True))
    return directory.get(backup_id)


def content_of(workplace: Workplace, stored: StoredBackup) -> bytes:
    """Return the dump of a backup, as a restore reads it."""
    sink = io.BytesIO()
    workplace.read(stored, "database", workplace.identities(stored, workplace.keys()), sink)
    return sink.getvalue()


def _stored(workplace: Workplace, checkpoints: Mapping[str, bytes]) -> CopiedCheckpoints:
    store = ObjectStore(workplace.directory, workplace.keys(writing=True))
    store.open(workplace.directory.all())
    objects = [store.add(io.BytesIO(content))[0] for content in checkpoints.values()]
    store.sync()
    files = tuple(
        CheckpointFile(path, len(content), 0, one.plain_sha256)
        for (path, content), one in zip(checkpoints.items(), objects, strict=True)
    )
    facts = CheckpointFacts(len(files), sum(one.size for one in files))
    return CopiedCheckpoints(files, tuple(objects), facts)
