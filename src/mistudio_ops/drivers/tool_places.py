"""Where PostgreSQL's client programs of the server's version are: the places, in the order in which they are asked."""

from collections.abc import Callable, Sequence

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers.container_tools import find_in_container
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.host_tools import host_tools, wheel_tools
from mistudio_ops.drivers.pg_tools import PgTools
from mistudio_ops.drivers.throwaway_tools import find_throwaway
from mistudio_ops.errors import PreconditionError

#: Looks in one place; returns the programs, or what was found there instead, for the error's text.
Finder = Callable[[int, DatabaseAccess, BackupSettings], PgTools | str]


def find_tools(
    server_major: int, access: DatabaseAccess, settings: BackupSettings, *, finders: Sequence[Finder] | None = None
) -> PgTools:
    """Return the client programs of the server's own major version, from the first place that has them.

    Raises:
        PreconditionError: no place has; the message says what was found, the hint what to do.
    """
    found = []
    for find in _finders() if finders is None else finders:
        tools = find(server_major, access, settings)
        if not isinstance(tools, str):
            return tools
        found.append(tools)
    raise PreconditionError(
        f"the database is served by PostgreSQL {server_major}, and no pg_dump and pg_restore of that version are here: "
        f"{'; '.join(found)}",
        hint=f"install postgresql-client-{server_major}; or name the container that PostgreSQL runs in as "
        f"database_container; or, with Docker, set backup.tools_image to postgres:{server_major}",
    )


def _finders() -> tuple[Finder, ...]:
    """The places, best first."""
    return (
        find_in_container,
        lambda major, *_: host_tools(major),
        lambda major, *_: wheel_tools(major),
        find_throwaway,
    )
