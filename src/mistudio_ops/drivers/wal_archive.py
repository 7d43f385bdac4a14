"""The server's archive of changes: what was written until now is sent there."""

import time
from collections.abc import Callable
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
) -> None:
    """Wait until all that is committed is in the archive. ``connection`` is the superuser's, in autocommit mode.

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
    connection.execute(_SWITCH)
    deadline = clock() + seconds
    while connection.execute(_ARCHIVED, (row[0] if row else "",)).fetchone() != (True,):
        if clock() > deadline:
            raise PreconditionError(
                f"what was written until now does not reach the archive within {seconds:.0f} s",
                hint="mistudio-ops logs postgres says what archive_command complains about",
            )
        sleep(0.1)
