"""One maintenance of a database at a time: a migration, a backup, the archiver. Who waits is told for whom."""

import time
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.engine import Connection

from mistudio_server.errors import LockedError

#: Key of the session advisory lock. Backups, which ``mistudio-ops`` makes, take the same.
MAINTENANCE_LOCK = 0x6D69_5374_7564_696F  # "miStudio"
POLL_SECONDS = 0.5

#: Is called with who holds the lock, once before the wait and again whenever that is another.
OnWait = Callable[[str], None]

_TRY = text("SELECT pg_try_advisory_lock(:key)")
# The key of 64 bits is shown as two of 32. Other roles' sessions show no application to a mere owner, only their role.
_HOLDERS = text(
    "SELECT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'a session') AS application,"
    " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since"
    " FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid::bigint = :high AND l.objid::bigint = :low"
)


def take(
    connection: Connection,
    *,
    wait: float | None,
    on_wait: OnWait | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Take the lock for the session, waiting up to ``wait`` seconds (None: without end) for who holds it.

    It is polled for: a statement that waits would hold a snapshot, and the vacuum back, for as long.

    Raises:
        LockedError: somebody still holds it; the message names who.
    """
    begun, told = clock(), ""
    while not connection.execute(_TRY, {"key": MAINTENANCE_LOCK}).scalar_one():
        who = holder(connection)
        connection.commit()
        left = None if wait is None else wait - (clock() - begun)
        if left is not None and left <= 0:
            raise LockedError(
                f"{who} holds the database's maintenance lock, and still does after {clock() - begun:.0f} s.",
                hint="Wait for it to end, or wait longer with --lock-wait. The lock goes with its session.",
            )
        if on_wait is not None and who != told:
            told = who
            on_wait(who)
        sleep(POLL_SECONDS if left is None else min(POLL_SECONDS, left))
    connection.commit()


def holder(connection: Connection) -> str:
    """Return who holds the lock, for a person."""
    keys = {"high": MAINTENANCE_LOCK >> 32, "low": MAINTENANCE_LOCK & 0xFFFF_FFFF}
    row = connection.execute(_HOLDERS, keys).first()
    if row is None:  # it has just ended
        return "another session"
    return f"{row.application} ({row.usename}, server process {row.pid}, connected since {row.since} UTC)"
