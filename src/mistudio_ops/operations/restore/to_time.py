"""Going back to a moment: with the archive that pgBackRest keeps, where an operator set it up.

    restore the files beside -> recover there to the moment -> look at it -> stop writers and server
    -> exchange the two folders in one system call -> start -> health; else exchange them back

Killed anywhere, PGDATA is one whole cluster: that from before, or the recovered one. What a kill may leave stopped,
``mistudio-ops deploy`` starts.
"""

import ctypes
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mistudio_ops.domain.backup import TableRows
from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.point_in_time import config_file, stanza
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.drivers.catalog import row_counts
from mistudio_ops.drivers.lock import command_line, exclusive
from mistudio_ops.drivers.pgbackrest import PgBackRest, check_moment, find_pgbackrest
from mistudio_ops.drivers.private_postgres import private_postgres
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.drivers.wal_archive import announce_timeline, archive_until_now
from mistudio_ops.engines import postgres
from mistudio_ops.engines.host import Host, inspect_host
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import KEPT_CLUSTER, PARTIAL_CLUSTER
from mistudio_ops.errors import OpsError, PreconditionError, UsageError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.lab import HEALTH_SECONDS, Lab, deployed_lab
from mistudio_ops.operations.restore.settle import settle_runs

UNIT = "postgres"
#: Replaying weeks of changes takes as long as it takes; this is for one that hangs.
RECOVERY_SECONDS = 24 * 3600.0
START_SECONDS = 60.0
ARCHIVE_SECONDS = 120.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_SIZE_FACTOR = 1.1


@dataclass(frozen=True, slots=True)
class WentBack:
    """What was done: ``tables`` as they were at ``when``; ``kept`` is the folder of the cluster from before."""

    environment: str
    when: datetime
    tables: tuple[TableRows, ...]
    kept: Path


def moment(text: str) -> datetime:
    """Return the moment that ``text`` names.

    Raises:
        UsageError: it is none, or names no time zone: an hour's difference is an hour of work.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise UsageError(
            f"--to-time {text!r} is no moment with a time zone", hint="write it as in '2026-11-23 02:00:00+00'"
        )
    return when


def go_back(workplace: Workplace, when: datetime, *, confirm: str | None) -> WentBack:
    """Do what ``restore_to_time`` does, on the lab that was deployed here."""
    environment = workplace.environment
    engine = ProcessEngine(environment.paths)
    lab = deployed_lab(environment, engine, workplace.reporter)
    return restore_to_time(workplace, when, lab, inspect_host(environment), confirm=confirm)


def restore_to_time(workplace: Workplace, when: datetime, lab: Lab, host: Host, *, confirm: str | None) -> WentBack:
    """Bring the embedded database back to ``when`` (with a time zone). All databases of the cluster go back.

    Raises:
        UsageError: ``confirm`` is not the database's name. Nothing was changed.
        PreconditionError: pgBackRest is not set up, or the database is not ours; no room. Nothing was changed.
        NothingFoundError: the archive does not reach to that moment. Nothing was changed.
        LockedError: another operation works on this environment.
        OpsError: it failed; the database is that from before.
    """
    environment = workplace.environment
    known = _secrets(workplace)
    archive = find_pgbackrest(config_file(environment), stanza(environment), host.account)
    check_moment(archive.earliest(), when, workplace.now())
    _check_confirmed(environment, when, confirm)
    with exclusive(environment.paths.lock, command_line()):
        _remove_partial(environment)
        _check_room(environment)
        timeline = _archive_until_now(workplace)
        folder, tables = _recover(workplace, archive, host, known, when, timeline)
        announce_timeline(folder, host.account.own)
        kept = _take_its_place(workplace, lab, known, folder)
    workplace.reporter.note(f"the database from before is kept in {kept}; mistudio-ops restore finalize removes it")
    return WentBack(environment.name, when, tables, kept)


def recovered_rows(
    archive: PgBackRest, host: Host, folder: Path, when: datetime, password: str, timeline: int | None = None
) -> tuple[TableRows, ...]:
    """Restore into ``folder``, recover to ``when``, and return the rows of the database's tables then.

    Runs that were in progress then are put back into the queue: nobody works on them.

    Raises:
        OpsError: it failed.
    """
    archive.restore(folder, when, timeline)
    with private_postgres(
        folder, host.programs.postgres.path, host.account, user=postgres.ADMIN, password=password,
        seconds=RECOVERY_SECONDS,
    ) as login, login.connect(postgres.OWNER) as connection:  # fmt: skip
        tables = row_counts(connection)
        settle_runs(connection)
        return tables


def exchange_folders(one: Path, other: Path) -> None:
    """Let two folders change names in one step: at no moment is either name without a folder.

    Raises:
        PreconditionError: the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done != 0:
        raise PreconditionError(
            f"the file system of {one} cannot exchange two folders in one step: {os.strerror(ctypes.get_errno())}",
            hint=f"mistudio-ops down; rename {one} and {other} by hand; mistudio-ops deploy",
        )


def _secrets(workplace: Workplace) -> SecretValues:
    environment = workplace.environment
    known = read_secrets(environment.paths.secrets)
    if environment.database_url is not None:
        raise PreconditionError(
            "the database at database_url is run by somebody else: only its own pgBackRest can bring it back",
            hint="pgbackrest --type=time --target=... restore, on its machine",
        )
    if known is None:
        raise PreconditionError(
            f"environment {environment.name} is not deployed", hint=f"mistudio-ops deploy {environment.name}"
        )
    workplace.reporter.hide(*known.all())
    return known


def _check_confirmed(environment: Environment, when: datetime, confirm: str | None) -> None:
    if confirm != postgres.OWNER:
        raise UsageError(
            f"everything that {environment.name} recorded after {when:%Y-%m-%d %H:%M:%S%z} would be lost",
            hint=f"to go on, add --confirm {postgres.OWNER}",
        )


def _check_room(environment: Environment) -> None:
    data = environment.paths.postgres
    needed = int(_SIZE_FACTOR * sum(path.stat().st_size for path in data.rglob("*") if path.is_file()))
    free = shutil.disk_usage(environment.state_dir).free
    if free < needed:
        raise PreconditionError(
            f"{environment.state_dir} has {free / 1e6:.0f} MB free; a second copy of the database needs "
            f"{needed / 1e6:.0f} MB",
            hint="free some space",
        )


def _archive_until_now(workplace: Workplace) -> int | None:
    """Send the newest changes to the archive and return the timeline. A server that is down has sent what it could."""
    import psycopg

    access = workplace.access()
    try:
        connection = access.admin.connect(access.name)
    except psycopg.OperationalError as error:
        workplace.reporter.warning(f"the database does not answer, so its newest changes may be missing: {error}")
        return None
    with workplace.reporter.step("archive what was written until now"), connection:
        return archive_until_now(connection, seconds=ARCHIVE_SECONDS)


def _recover(
    workplace: Workplace, archive: PgBackRest, host: Host, known: SecretValues, when: datetime, timeline: int | None
) -> tuple[Path, tuple[TableRows, ...]]:
    environment = workplace.environment
    folder = environment.paths.postgres.with_name(f"{PARTIAL_CLUSTER}{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    host.account.own(folder)
    try:
        with workplace.reporter.step(f"recover to {when:%Y-%m-%d %H:%M:%S%z} beside the live database") as step:
            tables = recovered_rows(archive, host, folder, when, known.postgres_admin_password, timeline)
            step.detail(f"{sum(table.rows for table in tables):,} rows in {len(tables)} tables")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, tables


@dataclass(slots=True)
class _Places:
    """The folder of the live cluster and that of the other one, and whether they were exchanged."""

    data: Path
    other: Path
    exchanged: bool = False

    def exchange(self) -> None:
        """Let them change names."""
        exchange_folders(self.data, self.other)
        self.exchanged = not self.exchanged


def _take_its_place(workplace: Workplace, lab: Lab, known: SecretValues, folder: Path) -> Path:
    """Put the recovered cluster in the live one's place; return the folder that keeps the one from before.

    The folder gets the name under which the old cluster will be kept before they are exchanged: whatever happens, no
    folder of that name is ever removed by itself.
    """
    places = _Places(workplace.environment.paths.postgres, folder.with_name(f"{KEPT_CLUSTER}{secrets.token_hex(4)}"))
    folder.rename(places.other)
    writers = lab.writers()
    try:
        with workplace.reporter.step("exchange the databases"):
            _switch(workplace, lab, writers, known, places.exchange)
        with workplace.reporter.step("ask for health"):
            _require_health(lab)
    except BaseException:
        _go_back(workplace, lab, writers, known, places)
        raise
    return places.other


def _go_back(workplace: Workplace, lab: Lab, writers: tuple[str, ...], known: SecretValues, places: _Places) -> None:
    """Bring the cluster from before back, and remove the recovered one."""
    if places.exchanged:
        with workplace.reporter.step("go back to the database from before"):
            _switch(workplace, lab, writers, known, places.exchange)
    shutil.rmtree(places.other, ignore_errors=True)


def _switch(
    workplace: Workplace, lab: Lab, writers: tuple[str, ...], known: SecretValues, change: Callable[[], None]
) -> None:
    """Stop what writes and the server, make the change, and start all of it, whatever came of the change."""
    server = lab.engine.definition(UNIT)
    if server is None:
        raise PreconditionError("the unit postgres is not known here", hint="mistudio-ops deploy")
    lab.stop(writers)
    lab.stop((UNIT,))
    try:
        change()
    finally:
        lab.start((UNIT,))
        _wait_for_server(workplace, known)
        lab.start(writers)


def _wait_for_server(workplace: Workplace, known: SecretValues) -> None:
    deadline = time.monotonic() + START_SECONDS

    def give_up() -> None:
        if time.monotonic() > deadline:
            raise OpsError(f"PostgreSQL does not answer after {START_SECONDS:.0f} s", hint="mistudio-ops logs postgres")

    postgres.wait_until_it_answers(workplace.environment, known, give_up=give_up)


def _require_health(lab: Lab) -> None:
    failures = lab.failures(HEALTH_SECONDS)
    if failures:
        told = "; ".join(f"{name}: {said}" for name, said in failures.items())
        raise OpsError(f"the lab is not healthy on the recovered database: {told}", hint="mistudio-ops health")


def _remove_partial(environment: Environment) -> None:
    """Remove what a killed run left while it recovered; a folder that may hold the old database has another name."""
    for left in environment.state_dir.glob(f"{PARTIAL_CLUSTER}*"):
        shutil.rmtree(left, ignore_errors=True)
