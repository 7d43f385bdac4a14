"""The session that a backup hangs on: it holds the maintenance lock, and the snapshot that dump and counts share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mistudio_ops.drivers.catalog import tables
from mistudio_ops.drivers.database_access import MAINTENANCE_LOCK, DatabaseAccess
from mistudio_ops.errors import LockedError, OpsError, PreconditionError

if TYPE_CHECKING:
    import psycopg

#: Names under which the server sees us. A run that was killed is known by them.
SESSION, DUMP, COUNTS = "mistudio-ops backup", "mistudio-ops backup dump", "mistudio-ops backup counts"
#: How long a table's exclusive lock (an ALTER, a partition being detached) is waited for.
TABLE_LOCK_SECONDS = 60
_POLL_SECONDS = 0.2
#: Time limits that a role or the server may have set, and that would end us in the middle. Not every major has each.
_NO_LIMITS = """
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN (
  'idle_session_timeout', 'transaction_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout'
)
"""
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
_HOLDER = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename, a.backend_start
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""
_END_LEFTOVERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND application_name = ANY(%s)
"""
_BLOCKERS = """
SELECT DISTINCT c.relname, a.pid, coalesce(nullif(a.application_name, ''), 'unnamed')
FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_FOREIGN_TABLES = """
SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT has_table_privilege(c.oid, 'SELECT')
ORDER BY 1
"""


class LostConnectionError(OpsError):
    """The database went away, or ended our session, while a backup was made."""

    code = "lost_connection"


@contextmanager
def maintenance_session(
    access: DatabaseAccess,
    *,
    wait: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator["psycopg.Connection[Any]"]:
    """Open a session that holds the lock shared with migrations and the archiver, waiting up to ``wait`` seconds.

    What a killed run left on the server is ended: nobody but the holder of the lock has sessions of those names.

    Raises:
        LockedError: somebody else holds the lock; the message names the session.
        LostConnectionError: the connection broke within the block.
        PreconditionError: no answer, or refused.
    """
    import psycopg

    with access.session(application=SESSION) as connection:
        try:
            connection.execute(_NO_LIMITS)
            _take_lock(connection, clock() + wait, sleep, clock)
            end_leftovers(connection)
            yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise _lost(access, error) from error


@contextmanager
def exported_snapshot(connection: "psycopg.Connection[Any]") -> Iterator[str]:
    """Open a transaction whose snapshot others can use, by the name returned, until the block ends.

    Every table is locked against changes of its form, as pg_dump does too, so that what is counted is what is dumped.

    Raises:
        LockedError: a table stays locked for more than a minute.
        PreconditionError: a table may not be read.
    """
    import psycopg

    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        connection.execute("SET LOCAL row_security = off")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None  # noqa: S101 - a function always returns a row
        try:
            _lock_tables(connection)
        except psycopg.errors.LockNotAvailable as error:
            connection.execute("ROLLBACK")
            raise _table_locked(connection) from error
        except psycopg.errors.InsufficientPrivilege as error:
            connection.execute("ROLLBACK")
            raise _not_readable(connection, error) from error
        yield str(row[0])
        connection.execute("SELECT 1")  # a session that was ended meanwhile has lost its locks: say so
    finally:
        if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.execute("ROLLBACK")


@contextmanager
def imported_snapshot(access: DatabaseAccess, name: str) -> Iterator["psycopg.Connection[Any]"]:
    """Open another session that sees exactly what the snapshot ``name`` sees."""
    from psycopg import sql

    with access.session(application=COUNTS) as connection:
        connection.execute(_NO_LIMITS)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
        connection.execute("SET LOCAL row_security = off")
        yield connection


def end_leftovers(connection: "psycopg.Connection[Any]") -> None:
    """End the dumping and counting sessions of a run that is over. Hold the lock."""
    connection.execute(_END_LEFTOVERS, ([DUMP, COUNTS],))


def _take_lock(
    connection: "psycopg.Connection[Any]", deadline: float, sleep: Callable[[float], None], clock: Callable[[], float]
) -> None:
    while True:
        row = connection.execute(_TRY_LOCK, (MAINTENANCE_LOCK,)).fetchone()
        if row and row[0]:
            return
        left = deadline - clock()
        if left <= 0:
            raise _locked(connection)
        sleep(min(_POLL_SECONDS, left))


def _locked(connection: "psycopg.Connection[Any]") -> LockedError:
    row = connection.execute(_HOLDER, (MAINTENANCE_LOCK,)).fetchone()
    who = f"session {row[0]} ({row[1]}, as {row[2]}, since {row[3]:%Y-%m-%d %H:%M:%S %Z})" if row else "another session"
    return LockedError(
        f"{who} holds the database's maintenance lock, which migrations, the archiver and backups share",
        hint="wait for it to end, or let the command wait: --lock-wait 600",
    )


def _lock_tables(connection: "psycopg.Connection[Any]") -> None:
    from psycopg import sql

    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(TABLE_LOCK_SECONDS * 1000)))
    names = [sql.Identifier(schema, name) for schema, name, _ in tables(connection)]
    if names:
        connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(sql.SQL(", ONLY ").join(names)))


def _table_locked(connection: "psycopg.Connection[Any]") -> LockedError:
    held = [f"{table} by session {pid} ({name})" for table, pid, name in connection.execute(_BLOCKERS)]
    who = ", ".join(held) or "by whom is not known any more"
    return LockedError(
        f"tables stay locked for more than {TABLE_LOCK_SECONDS} s: {who}",
        hint="end that session or let it finish, then run it again",
    )


def _not_readable(connection: "psycopg.Connection[Any]", error: Exception) -> PreconditionError:
    """A table that a superuser made by hand is the usual case. It is no reason to leave it out of a backup unsaid."""
    us = connection.info.user
    found = [tuple(map(str, row)) for row in connection.execute(_FOREIGN_TABLES)]
    named = ", ".join(f"{table} of {owner}" for table, owner in found) or str(error).strip().splitlines()[0]
    first = found[0][0] if found else "TABLE"
    return PreconditionError(
        f"{us} may not read all of the database: {named}",
        hint=f"as a superuser, in the database: ALTER TABLE {first} OWNER TO {us};  (or DROP it)",
    )


def _lost(access: DatabaseAccess, error: Exception) -> LostConnectionError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return LostConnectionError(
        f"the connection to {access.name} at {access.owner.host}:{access.owner.port} broke: {reason}",
        hint="nothing was left behind; look at the server's log, then run it again",
    )
