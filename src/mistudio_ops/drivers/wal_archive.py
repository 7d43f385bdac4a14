"""The server's archive of changes: what was written until now is sent there."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mistudio_ops.errors import PreconditionError

if TYPE_CHECKING:
    import psycopg

#: A transaction that changes nothing: recovery to a moment knows that it has come there by a later commit.
_COMMIT = "SELECT pg_current_xact_id()"
_FILE = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"
_SWITCH = "SELECT pg_switch_wal()"
_ARCHIVED = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"


def archive_until_now(
    connection: "psycopg.Connection[Any]",
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until all that is committed is in the archive; return the server's timeline.

    ``connection`` is the superuser's, in autocommit mode.

    Raises:
        PreconditionError: the server archives nothing, or its archive_command fails.
    """
    mode = connection.execute("SHOW archive_mode").fetchone()
    if mode is None or mode[0] == "off":
        raise PreconditionError(
            "the server archives nothing: archive_mode is off",
            hint="mistudio-ops config render pgbackrest tells how it is set up",
        )
    connection.execute(_COMMIT)
    row = connection.execute(_FILE).fetchone()
    name = str(row[0]) if row else ""
    connection.execute(_SWITCH)
    deadline = clock() + seconds
    while connection.execute(_ARCHIVED, (name,)).fetchone() != (True,):
        if clock() > deadline:
            raise PreconditionError(
                f"what was written until now does not reach the archive within {seconds:.0f} s",
                hint="mistudio-ops logs postgres says what archive_command complains about",
            )
        sleep(0.1)
    return int(name[:8], 16)


def announce_timeline(data: Path, own: Callable[[Path], None]) -> None:
    """Mark the history of a cluster's timelines for the archive: one that recovered apart from it has archived none.

    Without it nobody could go back to a moment on the new timeline. ``own`` gives a file to the server's account.
    """
    status = data / "pg_wal" / "archive_status"
    for history in (data / "pg_wal").glob("*.history"):
        ready = status / f"{history.name}.ready"
        if not (status / f"{history.name}.done").exists():
            ready.touch(mode=0o600)
            own(ready)
