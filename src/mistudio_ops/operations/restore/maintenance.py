"""Holding the advisory lock that migrations, the archiver and backups share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mistudio_ops.drivers.database_access import MAINTENANCE_LOCK, DatabaseAccess
from mistudio_ops.errors import LockedError

if TYPE_CHECKING:
    import psycopg

_POLL_SECONDS = 0.2
_HOLDER = """
SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.pid <> pg_backend_pid()
"""


@contextmanager
def no_maintenance(
    access: DatabaseAccess, *, wait: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator["psycopg.Connection[Any]"]:
    """Keep backups, archiver and migrations out of the live database until the block, or its database, ends.

    Raises:
        LockedError: one of them is at it and does not end within ``wait`` seconds; the message names it.
    """
    import psycopg

    connection = access.owner.connect(access.name, "mistudio-ops restore")
    try:
        while not _taken(connection):
            if wait <= 0:
                raise _held(connection)
            sleep(_POLL_SECONDS)
            wait -= _POLL_SECONDS
        yield connection
    finally:
        with suppress(psycopg.Error):  # the swap ends our session with all others
            connection.close()


def _taken(connection: "psycopg.Connection[Any]") -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (MAINTENANCE_LOCK,)).fetchone()
    return bool(row and row[0])


def _held(connection: "psycopg.Connection[Any]") -> LockedError:
    row = connection.execute(_HOLDER, (MAINTENANCE_LOCK,)).fetchone()
    who = f"session {row[0]} ({row[1] or 'no name'})" if row else "another session"
    return LockedError(
        f"{who} migrates, archives or backs up the database",
        hint="wait for it to end, or run this again with --lock-wait 600",
    )
