"""Putting a backup's database into an empty one, and comparing what is there then with what the manifest says."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio_ops.domain.backup import Manifest, StoredBackup
from mistudio_ops.drivers import catalog
from mistudio_ops.drivers.anonymous_file import NoRoomError, anonymous_file
from mistudio_ops.drivers.archive_file import verify_hash
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.pg_restore import Feed, Finished, Listener, run_pg_restore
from mistudio_ops.drivers.pg_tools import PgTools
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import OpsError, PreconditionError, VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.reporter import Step

if TYPE_CHECKING:
    import psycopg

#: Of our own loading sessions only. A crash loses the copy that is being made, which nobody uses yet; the commit that
#: gives it the live name is synchronous, and flushes all before it.
_SESSION = (
    "-c synchronous_commit=off -c maintenance_work_mem=128MB -c statement_timeout=0 -c lock_timeout=0"
    " -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
)
_ARGUMENTS = ("--no-owner", "--no-acl", "--exit-on-error")
#: Errors of the server's or the machine's, which say nothing about the backup.
_NOT_THE_BACKUP = re.compile(
    r"connection to server|server closed the connection|terminating connection|could not connect|SSL SYSCALL"
    r"|No space left on device|[Oo]ut of memory|could not extend file|the database system is|shared memory"
    r"|could not receive data|could not send data|no connection to the server|permission denied",
)
_MISSING_ROLE = re.compile(r'role "([^"]+)" does not exist')


class LoadError(OpsError):
    """Loading stopped for a reason that says nothing about the backup: the server, the machine, a kill."""

    code = "load_failed"


class UnusableBackupError(VerificationError):
    """The file is what was written, and PostgreSQL cannot make a database of it."""

    code = "unusable_backup"


def load(
    workplace: Workplace,
    stored: StoredBackup,
    access: DatabaseAccess,
    dbname: str,
    *,
    jobs: int = 1,
    identities: tuple[Any, ...],
    tools: PgTools | None = None,
    analyze: bool = True,
) -> None:
    """Load the backup's database into the empty database ``dbname``, as the owner role.

    With ``jobs`` above 1 it goes through a file without a name (gone with our process, however that ends), where there
    is room for it; otherwise it streams. ``analyze`` gathers statistics at the end, so that queries are fast at once.

    Raises:
        DamagedFileError: the file is not what was written.
        WrongKeyError: none of ``identities`` opens it.
        UnusableBackupError: the file is sound, and its content is refused.
        LoadError: the server or the machine failed; the backup may be good.
        PreconditionError: the client programs, or the server, have another major version.
    """
    manifest = sound_manifest(stored)
    tools = tools or loading_tools(workplace, access, manifest)
    job = _Job(workplace, stored, manifest, access, dbname, identities, tools)
    arguments = [*_ARGUMENTS, *_comments(workplace, access, dbname)]
    finished = _load_parallel(job, arguments, jobs) if jobs > 1 and tools.shares_files else None
    finished = finished or _load_stream(job, arguments)
    if finished.returncode != 0:
        raise _failure(job, finished)
    if analyze:
        with workplace.reporter.step("gather statistics"), access.session(dbname) as connection:
            connection.execute("ANALYZE")


def compare(manifest: Manifest, connection: "psycopg.Connection[Any]") -> list[str]:
    """Return how the database of ``connection`` differs from the manifest: revision, tables, partitions, row counts."""
    differences = []
    revision = catalog.revision(connection)
    if revision != manifest.database.revision:
        differences.append(f"its revision is {revision}; {manifest.database.revision} was backed up")
    found = {(table.schema, table.name): table for table in catalog.row_counts(connection)}
    for table in manifest.tables:
        there = found.pop((table.schema, table.name), None)
        name = f"{table.schema}.{table.name}"
        if there is None:
            differences.append(f"table {name} is missing")
        elif there.rows != table.rows:
            differences.append(f"{name} has {there.rows} rows; {table.rows} were backed up")
        elif there.parent != table.parent:
            differences.append(f"{name} belongs to {there.parent or 'no table'}, not to {table.parent or 'itself'}")
    return differences + [f"table {schema}.{name} was not backed up" for schema, name in found]


def sound_manifest(stored: StoredBackup) -> Manifest:
    """Return the manifest.

    Raises:
        VerificationError: there is none that can be used.
    """
    if stored.manifest is None or stored.problem is not None:
        raise VerificationError(f"backup {stored.id} cannot be used: {stored.problem}", hint="mistudio-ops backup list")
    return stored.manifest


def loading_tools(workplace: Workplace, access: DatabaseAccess, manifest: Manifest) -> PgTools:
    """Return the client programs that fit the server, which must not be older than the one that was dumped.

    Raises:
        PreconditionError: there are none, or the server is older.
    """
    with access.admin_session() as connection:
        major = catalog.server_major(connection)
    if major < manifest.database.server_major:
        raise PreconditionError(
            f"the backup was made by PostgreSQL {manifest.database.server_version}, and the server is older: {major}",
            hint=f"restore it on PostgreSQL {manifest.database.server_major} or newer",
        )
    tools = find_tools(major, access, workplace.environment.backup)
    found = tools.version.partition(".")[0]
    if found != str(major):
        raise PreconditionError(f"pg_restore in {tools.place} is of version {tools.version}; the server is {major}")
    return tools


def loading_login(login: Login) -> Login:
    """Return the login with the settings of a loading session."""
    return replace(login, options={**login.options, "options": _SESSION})


@dataclass(frozen=True, slots=True)
class _Job:
    """One backup on its way into one database."""

    workplace: Workplace
    stored: StoredBackup
    manifest: Manifest
    access: DatabaseAccess
    dbname: str
    identities: tuple[Any, ...]
    tools: PgTools

    def run(self, arguments: Sequence[str], step: Step, *, feed: Feed | None = None, descriptor: int | None = None,
            advance: bool = False) -> Finished:  # fmt: skip
        """Run pg_restore into the database."""
        return run_pg_restore(
            self.tools, ["--dbname", self.dbname, *arguments], loading_login(self.access.owner), self.dbname, feed=feed,
            pass_fds=() if descriptor is None else (descriptor,), listener=_told(step, self.manifest, advance=advance),
        )  # fmt: skip

    def read(self, step: Step, sink: Any) -> None:
        """Send the dump to ``sink``."""
        self.workplace.read(self.stored, "database", self.identities, sink, on_bytes=step.advance)


def _load_stream(job: _Job, arguments: list[str]) -> Finished:
    with job.workplace.reporter.step("load the database", total=_plain_size(job.manifest)) as step:
        return job.run(arguments, step, feed=partial(job.read, step))


def _load_parallel(job: _Job, arguments: list[str], jobs: int) -> Finished | None:
    """Load with several connections; None when there is no room for the file that this takes."""
    reporter = job.workplace.reporter
    folders = (job.workplace.directory.root, job.workplace.environment.state_dir, Path("/var/tmp"))  # noqa: S108 - no name
    try:
        with (
            _unpacked(job, folders) as descriptor,
            reporter.step("load the database", total=len(job.manifest.tables)) as step,
        ):
            parallel = [*arguments, "--jobs", str(jobs), f"/proc/self/fd/{descriptor}"]
            return job.run(parallel, step, descriptor=descriptor, advance=True)
    except NoRoomError as error:
        reporter.note(f"loading with one connection: {error}")
        return None


@contextmanager
def _unpacked(job: _Job, folders: tuple[Path, ...]) -> Iterator[int]:
    size = _plain_size(job.manifest)
    with anonymous_file(folders, size) as file:
        with job.workplace.reporter.step("unpack the backup", total=size) as step:
            file.fill(partial(job.read, step))
        yield file.descriptor


def _plain_size(manifest: Manifest) -> int:
    entry = manifest.file("database")
    return entry.plain_size if entry else 0


def _told(step: Step, manifest: Manifest, *, advance: bool = False) -> Listener:
    seen: list[str] = []

    def table(name: str) -> None:
        seen.append(name)
        step.detail(f"table {len(seen)} of {len(manifest.tables)}: {name}")
        if advance:
            step.advance()

    return Listener(table, lambda what: step.detail(what) if seen else None)


def _comments(workplace: Workplace, access: DatabaseAccess, dbname: str) -> list[str]:
    """Leave comments out where an extension belongs to somebody else: only its owner may comment on it."""
    with access.session(dbname) as connection:
        rows = connection.execute(_FOREIGN_EXTENSIONS).fetchall()
    if not rows:
        return []
    names = ", ".join(str(name) for (name,) in rows)
    workplace.reporter.debug(f"comments are not restored: {names} belongs to another role than {access.owner.user}")
    return ["--no-comments"]


_FOREIGN_EXTENSIONS = """
SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' AND NOT pg_has_role(extowner, 'USAGE') ORDER BY 1
"""


def _failure(job: _Job, finished: Finished) -> OpsError:
    """Find the cause: a damaged file before what pg_restore made of it, a dead server before a bad backup."""
    entry = job.manifest.file("database")
    if entry is not None:
        verify_hash(job.workplace.directory.path(job.stored.id) / entry.name, entry)
    said = finished.errors or f"it ended with {finished.returncode} and said nothing"
    if finished.killed:
        return LoadError(
            f"pg_restore was killed by signal {-finished.returncode}",
            hint="is memory short (dmesg)? Nothing else was changed: try again",
        )
    if role := _MISSING_ROLE.search(said):
        return LoadError(
            f"the server lacks the role {role[1]}, to which something in backup {job.stored.id} refers: {said}",
            hint=f'as a superuser: CREATE ROLE "{role[1]}";  (globals.sql of the backup has all roles)',
        )
    if _NOT_THE_BACKUP.search(said) or not _answers(job.access, job.dbname):
        return LoadError(f"the database could not be loaded: {said}", hint="mistudio-ops health, then try again")
    return UnusableBackupError(f"backup {job.stored.id} cannot be loaded: {said}")


def _answers(access: DatabaseAccess, dbname: str) -> bool:
    try:
        with access.session(dbname):
            return True
    except PreconditionError:
        return False


def usable_jobs(wanted: int | None = None, *, processors: int | None = None) -> int:
    """Return how many connections to load with: as many as wanted, else half the processors, at most four.

    Each keeps a process of the server as busy as itself: on two processors, two connections and the file that they
    need took 27 s where one that streams took 23 (docs/PERFORMANCE.md).
    """
    return wanted or max(1, min(4, (processors or len(os.sched_getaffinity(0))) // 2))
