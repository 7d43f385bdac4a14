"""Sessions that our own programs left in the database: a program in a container outlives whoever started it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

#: A role may end its own sessions; those of others stay, and are not ours.
_END = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = %s AND datname = %s AND pid <> pg_backend_pid() AND pid <> ALL (%s)
"""


def end_sessions(
    connection: "psycopg.Connection[Any]", application: str, dbname: str, *, but: tuple[int, ...] = ()
) -> list[int]:
    """End the sessions in ``dbname`` that have this application name; return the ids of their server processes.

    Call it when nobody else can be at this work: with the maintenance lock held, or with a name that is one run's own.
    ``but`` are sessions that stay.
    """
    return [int(pid) for pid, ended in connection.execute(_END, (application, dbname, list(but))) if ended]
