"""Making a backup: one snapshot for the dump and the counts, everything written aside, then a name in one step.

    lock the directory -> lock the database -> copy checkpoints -> take the snapshot -> dump and count -> write the
    manifest -> rename -> verify

Whatever fails, or is killed, before the rename leaves nothing that looks like a backup.
"""

import platform
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio_ops import __version__
from mistudio_ops.domain.backup import (
    DatabaseFacts,
    FileEntry,
    Kind,
    Manifest,
    StoredBackup,
    TableRows,
    new_id,
)
from mistudio_ops.domain.backup_settings import BackupSettings, Part
from mistudio_ops.domain.quantities import counted
from mistudio_ops.drivers.archive_file import write_plain
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.catalog import database_facts, server_major
from mistudio_ops.drivers.checkpoint_objects import clean_objects
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import KEY_FILE, Keys
from mistudio_ops.drivers.pg_tools import PgTools
from mistudio_ops.drivers.snapshot import end_leftovers, exported_snapshot, maintenance_session
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.checkpoints import CopiedCheckpoints, copy_checkpoints, unread_bytes, write_index
from mistudio_ops.operations.backup.configuration import CONFIGURATION_FILE, configuration_document, release_document
from mistudio_ops.operations.backup.counting import counting
from mistudio_ops.operations.backup.dump import GLOBALS_FILE, DumpError, dump_database, dump_globals
from mistudio_ops.operations.backup.room import (
    FreeBytes,
    disk_errors_named,
    disk_free_bytes,
    expected_size,
    require_room,
)
from mistudio_ops.operations.backup.verify import verify_locked
from mistudio_ops.operations.backup.workplace import Workplace

if TYPE_CHECKING:
    import psycopg

FindTools = Callable[[int, DatabaseAccess, BackupSettings], PgTools]
_RELEASE_FACTS = ("id", "created", "schema", "config")


def create(
    workplace: Workplace,
    *,
    kind: Kind,
    include: tuple[Part, ...] | None = None,
    lock_wait: float = 0.0,
    free_bytes: FreeBytes = disk_free_bytes,
    find: FindTools = find_tools,
    clock: Callable[[], float] = time.monotonic,
) -> StoredBackup:
    """Make a backup of the environment, verify it, and return it. ``include`` None: what is configured.

    Raises:
        LockedError: another command works here, or on the database, for longer than ``lock_wait`` seconds.
        PreconditionError: it would not fit; no client programs of the server's version; no database. Nothing was done.
        VerificationError: it was made, and it is bad.
        OpsError: it was not made; the message says why. Nothing of it is left.
    """
    deadline = clock() + lock_wait
    workplace.directory.prepare()
    with workplace.directory.lock(lock_wait):
        left = max(0.0, deadline - clock())
        return create_locked(workplace, kind=kind, include=include, lock_wait=left, free_bytes=free_bytes, find=find)


def create_locked(
    workplace: Workplace,
    *,
    kind: Kind,
    include: tuple[Part, ...] | None = None,
    lock_wait: float = 0.0,
    free_bytes: FreeBytes = disk_free_bytes,
    find: FindTools = find_tools,
) -> StoredBackup:
    """Do what ``create`` does, with the directory's lock held by the caller; ``lock_wait`` is for the database's."""
    clean(workplace)
    parts = workplace.environment.backup.include if include is None else include
    access = workplace.access()
    with disk_errors_named(workplace.directory.root), maintenance_session(access, wait=lock_wait) as session:
        keys = workplace.keys(writing=True)
        tools = find(server_major(session), access, workplace.environment.backup)
        job = _Job(workplace, kind, keys, access, tools, session)
        job.release = release_document(workplace)
        job.require_room("checkpoints" in parts, free_bytes)
        copied = copy_checkpoints(workplace, keys) if "checkpoints" in parts else None
        stored = job.write(copied)
    return _verified(workplace, stored, keys)


def clean(workplace: Workplace) -> None:
    """Remove what killed commands left half-made in the directory. Hold its lock."""
    left = workplace.directory.clean()
    clean_objects(workplace.directory)
    if left:
        workplace.reporter.note(f"removed what an interrupted command left: {', '.join(left)}")


@dataclass(slots=True)
class _Job:
    """One backup being made. ``seconds`` says how long each part took."""

    workplace: Workplace
    kind: Kind
    keys: Keys
    access: DatabaseAccess
    tools: PgTools
    session: "psycopg.Connection[Any]"
    seconds: dict[str, float] = field(default_factory=dict)
    release: dict[str, Any] | None = None

    @property
    def directory(self) -> BackupDirectory:
        return self.workplace.directory

    def require_room(self, checkpoints: bool, free_bytes: FreeBytes) -> None:
        """Refuse what would not fit."""
        facts = database_facts(self.session, self.access.name)
        needed = expected_size(facts, self.directory.all())
        needed += unread_bytes(self.workplace, self.keys) if checkpoints else 0
        require_room(self.directory.root, needed, free_bytes=free_bytes)

    def write(self, copied: CopiedCheckpoints | None) -> StoredBackup:
        """Write all files and the manifest, and publish them."""
        with ExitStack() as open_until_published:
            snapshot = open_until_published.enter_context(exported_snapshot(self.session))
            created = self.workplace.now()
            facts = database_facts(self.session, self.access.name)
            backup_id = new_id(created, secrets.token_hex(4))
            folder = open_until_published.enter_context(self.directory.partial(backup_id))
            dump, tables = self._dump(snapshot, folder, facts)
            self.session.execute("COMMIT")  # ends the snapshot: it keeps the server from cleaning up
            files = (dump, *self._small_files(folder), *self._checkpoint_files(folder, copied))
            manifest = self._manifest(backup_id, created, facts, tables, files, copied)
            self.directory.publish(manifest)
        return self.directory.get(backup_id)

    def _dump(self, snapshot: str, folder: Path, facts: DatabaseFacts) -> tuple[FileEntry, tuple[TableRows, ...]]:
        began = time.monotonic()
        before = next((one for one in reversed(self.directory.all()) if one.manifest), None)
        entry = before.manifest.file("database") if before and before.manifest else None
        total = entry.plain_size if entry else facts.size_bytes
        with self.workplace.reporter.step(f"dumping {self.access.name}", total=total) as step:
            try:
                with counting(self.access, snapshot) as counts:
                    dump = dump_database(self.tools, self.access, snapshot, folder, self.keys, step.advance)
                    self.seconds["dump"] = time.monotonic() - began
                    step.detail("counting rows")
                    tables = counts.result()
            except BaseException:
                self._end_sessions()
                raise
            self.session.execute("SELECT 1")
            step.detail(f"{counted(sum(one.rows for one in tables), 'row')} in {counted(len(tables), 'table')}")
        return dump, tables

    def _end_sessions(self) -> None:
        """End what a program that was killed may have left running on the server."""
        import psycopg

        try:
            end_leftovers(self.session)
        except psycopg.Error as error:
            self.workplace.reporter.debug(f"sessions of the dump could not be ended: {error}")

    def _small_files(self, folder: Path) -> list[FileEntry]:
        files = [write_plain(self._globals(), folder / GLOBALS_FILE, "globals")]
        files.append(
            write_plain(
                configuration_document(self.workplace, self.release), folder / CONFIGURATION_FILE, "configuration"
            )
        )
        if self.keys.key_file is not None:
            files.append(write_plain(self.keys.key_file, folder / KEY_FILE, "key"))
        return files

    def _globals(self) -> bytes:
        try:
            text, missing = dump_globals(self.tools, self.access)
        except DumpError as error:
            text, missing = "", f"all of it: {error.message}"
        if missing is None:
            return text.encode()
        self.workplace.reporter.warning(
            f"{GLOBALS_FILE} of the backup lacks {missing}",
            hint="only needed on another server, and the manifest names the roles",
        )
        return f"-- Not readable as {self.access.owner.user}: {missing}\n{text}".replace("\x00", "").encode()

    def _checkpoint_files(self, folder: Path, copied: CopiedCheckpoints | None) -> tuple[FileEntry, ...]:
        if copied is None:
            return ()
        if copied.facts.vanished:
            self.workplace.reporter.note(
                f"checkpoints that vanished while they were copied, as the trainer keeps few: "
                f"{', '.join(copied.facts.vanished)}"
            )
        return write_index(copied, folder, self.keys)

    def _manifest(
        self,
        backup_id: str,
        created: datetime,
        facts: DatabaseFacts,
        tables: tuple[TableRows, ...],
        files: tuple[FileEntry, ...],
        copied: CopiedCheckpoints | None,
    ) -> Manifest:
        self.seconds["all"] = max(0.0, (self.workplace.now() - created).total_seconds())
        return Manifest(
            id=backup_id, sequence=self.directory.next_sequence(), kind=self.kind,
            environment=self.workplace.environment.name, created=created, database=facts, tables=tables, files=files,
            encryption=self.keys.encryption, versions=self._versions(facts), release=self._release(),
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            checkpoints=copied.facts if copied else None,
        )  # fmt: skip

    def _versions(self, facts: DatabaseFacts) -> dict[str, str]:
        import zstandard

        return {
            "mistudio": __version__,
            "python": platform.python_version(),
            "server": facts.server_version,
            "pg_dump": self.tools.version,
            "zstandard": zstandard.__version__,
        }

    def _release(self) -> dict[str, str | None]:
        if self.release is None:
            return {}
        source = {name: self.release["source"].get(name) for name in ("version", "git_sha")}
        return {name: self.release.get(name) for name in _RELEASE_FACTS} | source


def _verified(workplace: Workplace, stored: StoredBackup, keys: Keys) -> StoredBackup:
    """Read it back: to the end where a key is at hand, else as it lies there.

    Raises:
        VerificationError: it is bad, which its marks say from now on.
    """
    done = verify_locked(workplace, stored, "read" if keys.can_read else "hash")
    if not done.ok:
        raise VerificationError(
            f"backup {stored.id} was made, and what lies on the disk is not what was written: {done.reason}",
            hint="look at the disk (dmesg, smartctl), then make another; this one is listed as bad and never used",
        )
    return workplace.directory.get(stored.id)
