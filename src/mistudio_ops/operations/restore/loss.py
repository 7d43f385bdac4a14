"""What a restore would lose: rows and trainings that came after the backup."""

from datetime import datetime
from typing import Any

from mistudio_ops.domain.backup import Manifest
from mistudio_ops.domain.restore_plan import Loss, RunningTraining, TableLoss
from mistudio_ops.drivers.catalog import row_counts
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.errors import OpsError

_RUNNING = """
SELECT id, name, status, step FROM trainings WHERE status IN ('running', 'pausing', 'stopping') ORDER BY id
"""


def measure_loss(access: DatabaseAccess, manifest: Manifest, now: datetime, *, exists: bool) -> Loss:
    """Compare the live database with the backup, table by table. What cannot be counted is said, never raised."""
    import psycopg

    minutes = max(0.0, (now - manifest.created).total_seconds() / 60)
    if not exists:
        return Loss(manifest.id, access.name, minutes, problem=f"there is no database {access.name} now")
    try:
        with access.session() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            counted = _by_table(connection)
            running = _running(connection) if "trainings" in counted else ()
    except (psycopg.Error, OpsError) as error:
        why = str(error).strip().splitlines()[0]
        return Loss(manifest.id, access.name, minutes, problem=f"its rows cannot be counted: {why}")
    wanted = manifest.rows_by_table()
    tables = tuple(TableLoss(name, counted.get(name), wanted.get(name)) for name in sorted({*counted, *wanted}))
    return Loss(manifest.id, access.name, minutes, tables, running)


def _by_table(connection: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for table in row_counts(connection):
        name = table.parent or table.name
        counts[name] = counts.get(name, 0) + table.rows
    return counts


def _running(connection: Any) -> tuple[RunningTraining, ...]:
    return tuple(RunningTraining(*row) for row in connection.execute(_RUNNING).fetchall())
