"""Runs that were in progress when a backup was made: nobody works on them in the restored database.

They go back to the queue without counting as deaths. Every claim grows by far: a worker that could not be stopped (an
external server has such) finds its claim gone and gives up, instead of writing into the restored run where it stands.
"""

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    import psycopg

_TABLES = "SELECT to_regclass('trainings') IS NOT NULL AND to_regclass('datasets') IS NOT NULL"
#: By table; ``{incoming}`` is where its rows are. Nobody works on a run that comes back, and an old worker's claim must
#: not fit it.
SETTLE: dict[str, LiteralString] = {
    "trainings": """
        UPDATE {incoming} SET claim = claim + 1000, heartbeat_at = NULL,
            queued_at = CASE WHEN status = 'running' THEN COALESCE(queued_at, now()) ELSE queued_at END,
            status = CASE status WHEN 'running' THEN 'queued' WHEN 'pausing' THEN 'paused'
                WHEN 'stopping' THEN 'cancelled' ELSE status END
    """,
    "datasets": """
        UPDATE {incoming} SET claim = claim + 1000, heartbeat_at = NULL,
            progress = CASE WHEN status = 'processing' THEN 0 ELSE progress END,
            status = CASE status WHEN 'processing' THEN 'queued' ELSE status END
        WHERE extraction IS NOT NULL
    """,
}
_IN_PROGRESS = """
SELECT (SELECT count(*) FROM trainings WHERE status IN ('running', 'pausing', 'stopping'))
     + (SELECT count(*) FROM datasets WHERE status = 'processing' AND extraction IS NOT NULL)
"""


def settle_runs(connection: "psycopg.Connection[Any]") -> int:
    """Put runs in progress back; return their number. A database without our tables has none."""
    from psycopg import sql

    there = connection.execute(_TABLES).fetchone()
    if there is None or not there[0]:
        return 0
    with connection.transaction():
        row = connection.execute(_IN_PROGRESS).fetchone()
        for table, statement in SETTLE.items():
            connection.execute(sql.SQL(statement).format(incoming=sql.Identifier(table)))
    return int(row[0]) if row else 0
