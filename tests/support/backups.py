"""Backups for tests: as values, and as small sound folders on a disk."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mistudio_ops.domain.backup import (
    CheckpointFacts,
    DatabaseFacts,
    Encryption,
    Kind,
    Manifest,
    Marks,
    StoredBackup,
    TableRows,
    Verification,
    new_id,
)
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.archive_file import write_archive, write_plain
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.checkpoint_objects import OBJECTS_FILE, ObjectStore, StoredObject, render_objects
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FACTS = DatabaseFacts(
    name="mistudio", server_version="15.8", server_major=15, size_bytes=1 << 20, owner="mistudio", encoding="UTF8",
    collate="C.UTF-8", ctype="C.UTF-8", revision="0001",
)  # fmt: skip


def manifest(sequence: int, created: datetime = NOON, kind: Kind = "scheduled") -> Manifest:
    """Return the manifest of a backup without files."""
    return Manifest(
        id=new_id(created, f"{sequence:08x}"), sequence=sequence, kind=kind, environment="local", created=created,
        database=FACTS, tables=(TableRows("public", "trainings", 3),), files=(), encryption=Encryption(),
        versions={"mistudio": "0.1.0"},
    )  # fmt: skip


def stored(
    sequence: int,
    created: datetime = NOON,
    kind: Kind = "scheduled",
    *,
    marks: Marks | None = None,
    problem: str | None = None,
) -> StoredBackup:
    """Return a backup as a directory would list it; good unless something is said."""
    made = manifest(sequence, created, kind)
    return StoredBackup(made.id, made, marks or Marks(), problem)


def restored(at: datetime = NOON) -> Marks:
    """Return the marks of a backup that was proven by a restore."""
    return Marks(verifications=(Verification("restore", at, ok=True),))


def failed(at: datetime = NOON, reason: str = "one bit is another") -> Marks:
    """Return the marks of a backup that failed its verification."""
    return Marks(verifications=(Verification("hash", at, ok=False, reason=reason),))


def put(
    directory: BackupDirectory,
    created: datetime = NOON,
    kind: Kind = "scheduled",
    *,
    content: bytes = b"rows of a database\n" * 50,
    checkpoints: tuple[bytes, ...] = (),
) -> StoredBackup:
    """Publish a small backup with one sound file, and an object for each of ``checkpoints``; return it."""
    directory.prepare()
    plan = manifest(directory.next_sequence(), created, kind)
    with directory.partial(plan.id) as folder:
        entry = write_archive(io.BytesIO(content), folder / "database.dump.zst", "database", Keys(Encryption()))
        files = [entry]
        if checkpoints:
            files.append(
                write_plain(render_objects(_objects(directory, checkpoints)), folder / OBJECTS_FILE, "objects")
            )
            plan = replace(plan, checkpoints=CheckpointFacts(len(checkpoints)))
        directory.publish(replace(plan, files=tuple(files)))
    return directory.get(plan.id)


def _objects(directory: BackupDirectory, contents: tuple[bytes, ...]) -> list[StoredObject]:
    store = ObjectStore(directory, Keys(Encryption()))
    store.open(directory.all())
    return [store.add(io.BytesIO(content))[0] for content in contents]


def garble(directory: BackupDirectory, backup_id: str) -> None:
    """Flip one bit of the database's file; its size stays."""
    path = directory.path(backup_id) / "database.dump.zst"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def workplace(root: Path, *, now: datetime = NOON, settings: BackupSettings | None = None, **environ: str) -> Workplace:
    """Return a workplace below ``root`` whose clock stands at ``now``, with a recording reporter."""
    environment = Environment("local", root / "state", backup=settings or BackupSettings())
    place = Workplace(environment, RecordingReporter(), environ, lambda: now)
    place.directory.prepare()
    return place
