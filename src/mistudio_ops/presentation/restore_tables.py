"""How rows that were brought back look."""

from mistudio_ops.operations.restore.rows import TableOutcome
from mistudio_ops.operations.restore.tables import TablesRestored
from mistudio_ops.presentation.blocks import Line, Table
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/restore-tables/1"
_COLUMNS = ("table", "in backup", "restored", "replaced", "left as is", "")


def tables_result(done: TablesRestored) -> Result:
    """Return a row for each table, and a verdict."""
    rows = [
        (one.table, f"{one.selected:,}", f"{one.restored:,}", f"{one.replaced:,}", f"{one.there:,}", _remark(one))
        for one in done.tables
    ]
    table = Table(_COLUMNS, rows, right=frozenset(_COLUMNS[1:5]))
    return Result(SCHEMA, done, (table, _verdict(done)))


def _remark(one: TableOutcome) -> str:
    made = ["table made anew"] if one.recreated else []
    return ", ".join(made + [f"partition {name} made" for name in one.partitions])


def _verdict(done: TablesRestored) -> Line:
    counted = f"{done.rows:,} rows of backup {done.backup_id}"
    if done.dry_run:
        return Line(f"{counted} would come back into {done.database}; nothing was changed", "warn")
    if not done.rows:
        return Line(f"nothing was missing in {done.database}", "good")
    return Line(f"{counted} came back into {done.database} in {done.seconds:.1f} s", "good")
