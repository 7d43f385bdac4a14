"""Proving a backup: its bytes, its readability, and that a database comes out of it.

What is wrong with a backup is recorded in its marks and makes it bad. What is wrong around it (a missing key, a server
that is down, no room) is raised, and says nothing about the backup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from mistudio_ops.domain.backup import LEVELS, FileEntry, Level, Manifest, StoredBackup, Verification
from mistudio_ops.drivers import catalog
from mistudio_ops.drivers.archive_file import read_archive, verify_hash
from mistudio_ops.drivers.backup_directory import LATEST
from mistudio_ops.drivers.checkpoint_objects import object_path, objects_of, verify_objects
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.pg_restore import run_pg_restore
from mistudio_ops.drivers.pg_tools import PgTools
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import NothingFoundError, OpsError, PreconditionError, VerificationError
from mistudio_ops.operations.backup.loading import LoadError, UnusableBackupError, compare, sound_manifest
from mistudio_ops.operations.backup.scratch import scratch_copy
from mistudio_ops.operations.backup.soundness import examine
from mistudio_ops.operations.backup.workplace import Workplace

#: Role of files that are compressed, and encrypted where anything is.
_ARCHIVES = ("database", "checkpoints", "globals", "configuration")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome for one backup. ``error`` is set when it could not be verified, which says nothing about it."""

    id: str
    level: Level
    ok: bool
    seconds: float
    reason: str | None = None
    error: OpsError | None = None


def verify(workplace: Workplace, stored: StoredBackup, level: Level, *, lock_wait: float = 0) -> Verification:
    """Verify one backup up to ``level``, and record the outcome in its marks.

    Raises:
        LockedError: somebody else works on these backups.
        OpsError: as ``verify_locked``.
    """
    with workplace.directory.lock(lock_wait):
        return verify_locked(workplace, workplace.directory.get(stored.id), level)


def verify_selected(
    workplace: Workplace, names: Sequence[str], level: Level, *, every: bool = False, lock_wait: float = 0
) -> list[Verified]:
    """Verify the backups that are named; all with ``every``; the newest good one where neither is said.

    One that cannot be verified does not keep the others from it.

    Raises:
        LockedError: somebody else works on these backups.
        NothingFoundError: there is no such backup, or none at all.
    """
    directory = workplace.directory
    if not directory.root.is_dir():
        raise NothingFoundError(f"there are no backups: {directory.root} does not exist", hint="mistudio-ops backup")
    with directory.lock(lock_wait):
        chosen = directory.all() if every else [directory.find(name) for name in names or (_newest(workplace),)]
        if not chosen:
            raise NothingFoundError(f"there are no backups in {directory.root}", hint="mistudio-ops backup")
        return [_attempt(workplace, stored, level) for stored in chosen]


def verify_locked(workplace: Workplace, stored: StoredBackup, level: Level) -> Verification:
    """Verify one backup up to ``level`` and record the outcome. The caller holds the directory's lock.

    Raises:
        WrongKeyError: it cannot be opened with the keys at hand.
        PreconditionError: client programs, rights or room are missing, or the server does not answer.
        LoadError: the server or the machine failed on the way.
    """
    failed: str | None = None
    reached: Level = "hash"
    try:
        for reached in LEVELS[: LEVELS.index(level) + 1]:
            with workplace.reporter.step(f"verify {stored.id}: {_TITLES[reached]}"):
                _PROOFS[reached](workplace, stored)
    except VerificationError as error:
        failed = error.message
    done = Verification(reached, workplace.now(), failed is None, failed)
    workplace.directory.record(stored.id, done)
    return done


def _attempt(workplace: Workplace, stored: StoredBackup, level: Level) -> Verified:
    began = monotonic()
    try:
        done = verify_locked(workplace, stored, level)
    except OpsError as error:
        return Verified(stored.id, level, False, monotonic() - began, error.message, error)
    return Verified(stored.id, done.level, done.ok, monotonic() - began, done.reason)


def _newest(workplace: Workplace) -> str:
    """The newest backup, whether it is good or not: a bad newest one must not hide behind an older good one."""
    backups = workplace.directory.all()
    return backups[-1].id if backups else LATEST


def _prove_hashes(workplace: Workplace, stored: StoredBackup) -> None:
    manifest = sound_manifest(stored)
    folder = workplace.directory.path(stored.id)
    if manifest.file("database") is None:
        raise VerificationError(f"backup {stored.id} holds no database")
    for entry in manifest.files:
        verify_hash(folder / entry.name, entry)
    verify_objects(workplace.directory, stored)


def _prove_readable(workplace: Workplace, stored: StoredBackup) -> None:
    manifest = sound_manifest(stored)
    identities = workplace.identities(stored, workplace.keys())
    folder = workplace.directory.path(stored.id)
    for entry in manifest.files:
        if entry.role in _ARCHIVES and entry.role != "database" and ".zst" in entry.name:
            read_archive(folder / entry.name, entry, identities, _Nowhere())
    _read_objects(workplace, stored, identities)
    _read_dump(workplace, stored, manifest, identities)


def _read_objects(workplace: Workplace, stored: StoredBackup, identities: tuple[Any, ...]) -> None:
    for one in objects_of(workplace.directory, stored):
        path = object_path(workplace.directory, stored, one.plain_sha256)
        entry = one.entry(path.name.removeprefix(one.plain_sha256))
        read_archive(path, entry, identities, _Nowhere())


def _read_dump(workplace: Workplace, stored: StoredBackup, manifest: Manifest, identities: tuple[Any, ...]) -> None:
    """Let pg_restore read the dump to its end, and compare the tables that it finds with the manifest's."""
    tools, login = _reading_tools(workplace, manifest)
    feed = partial(workplace.read, stored, "database", identities)
    finished = run_pg_restore(tools, ["--file", "/dev/null"], login, manifest.database.name, feed=feed)
    if finished.returncode != 0 or not finished.fed:
        _raise_unreadable(workplace, stored, manifest.file("database"), finished.errors, killed=finished.killed)
    missing = [f"{one.schema}.{one.name}" for one in manifest.tables]
    missing = sorted(set(missing) - set(finished.tables))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UnusableBackupError(f"the dump of backup {stored.id} lacks {', '.join(missing[:_SHOWN])}{more}")


def _raise_unreadable(
    workplace: Workplace, stored: StoredBackup, entry: FileEntry | None, said: str, *, killed: bool
) -> None:
    if entry is not None:
        verify_hash(workplace.directory.path(stored.id) / entry.name, entry)
    if killed:
        raise LoadError(f"pg_restore was killed while it read backup {stored.id}", hint="try again")
    raise UnusableBackupError(f"pg_restore cannot read the dump of backup {stored.id}: {said or 'it ended early'}")


def _prove_by_restoring(workplace: Workplace, stored: StoredBackup) -> None:
    import psycopg

    manifest = sound_manifest(stored)
    access = workplace.access()
    identities = workplace.identities(stored, workplace.keys())
    try:
        with scratch_copy(workplace, stored, access, identities) as name, access.session(name) as connection:
            differences = compare(manifest, connection)
            soundness = examine(connection)
    except psycopg.Error as error:  # the server's own failures were named where they happened
        raise UnusableBackupError(f"backup {stored.id} restores to what cannot be questioned: {error}") from error
    for remark in soundness.remarks:
        workplace.reporter.debug(remark)
    wrong = [*differences, *soundness.problems]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UnusableBackupError(f"backup {stored.id} restores to something else: {'; '.join(wrong[:_SHOWN])}{more}")


def _reading_tools(workplace: Workplace, manifest: Manifest) -> tuple[PgTools, Login]:
    """Return programs that read the dump: of its own version, or of the server's since that was upgraded.

    For the former the database need not run, nor be there at all.
    """
    settings, major = workplace.environment.backup, manifest.database.server_major
    try:
        access = workplace.access()
    except PreconditionError:
        nobody = Login("localhost", 5432, "nobody", None, {})
        access = DatabaseAccess("nothing", nobody, nobody, workplace.environment.database_container)
    try:
        return find_tools(major, access, settings), access.owner
    except PreconditionError as error:
        newer = _server_major(access)
        if newer is None or newer <= major:
            raise error from None
        return find_tools(newer, access, settings), access.owner


def _server_major(access: DatabaseAccess) -> int | None:
    try:
        with access.admin_session() as connection:
            return catalog.server_major(connection)
    except PreconditionError:
        return None


class _Nowhere:
    """Takes everything."""

    def write(self, data: Any, /) -> int:
        """Take it."""
        return len(data)


_TITLES: dict[Level, str] = {"hash": "bytes", "read": "read to the end", "restore": "restore and compare"}
_PROOFS = {"hash": _prove_hashes, "read": _prove_readable, "restore": _prove_by_restoring}
