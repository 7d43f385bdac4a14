"""Backups as values, and small ones on a disk, for tests that need no database."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mistudio_ops.domain.backup import DatabaseFacts, Encryption, Kind, Manifest, TableRows, new_id
from mistudio_ops.drivers.archive_file import file_suffix, write_archive, write_plain
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.encryption import Keys

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DATABASE = DatabaseFacts(
    name="mistudio", server_version="15.18", server_major=15, size_bytes=8_000_000, owner="mistudio", encoding="UTF8",
    collate="C.UTF-8", ctype="C.UTF-8", revision="0001", roles=("mistudio",),
)  # fmt: skip
TABLES = (
    TableRows("public", "trainings", 3),
    TableRows("public", "training_metrics_y2026m10", 100, "training_metrics"),
    TableRows("public", "training_metrics_y2026m11", 50, "training_metrics"),
)


def manifest(number: int = 1, created: datetime = NOON, *, kind: Kind = "manual") -> Manifest:
    """Return a manifest without files."""
    return Manifest(
        id=new_id(created, f"{number:08x}"), sequence=number, kind=kind, environment="local", created=created,
        database=DATABASE, tables=TABLES, files=(), encryption=Encryption(),
        versions={"mistudio": "0.1.0", "pg_dump": "15.18"}, release={"id": "r0001"}, seconds={"dump": 0.5},
    )  # fmt: skip


def stored(
    root: Path, number: int = 1, created: datetime = NOON, *, kind: Kind = "manual", keys: Keys | None = None,
    content: bytes = b"not a real dump, but bytes " * 40,
) -> Manifest:  # fmt: skip
    """Put a small backup into the directory ``root``, in the way in which real ones get there."""
    directory = BackupDirectory(root)
    directory.prepare()
    keys = keys or Keys(Encryption())
    draft = manifest(number, created, kind=kind)
    with directory.partial(draft.id) as folder:
        name = f"database.dump{file_suffix(keys.encryption)}"
        entries = (
            write_archive(io.BytesIO(content), folder / name, "database", keys),
            write_plain(b"-- roles\n", folder / "globals.sql", "globals"),
        )
        done = replace(draft, files=entries, encryption=keys.encryption)
        directory.publish(done)
    return done
