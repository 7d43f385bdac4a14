"""How going back to a moment looks."""

from mistudio_ops.operations.restore.to_time import WentBack
from mistudio_ops.presentation.blocks import Line
from mistudio_ops.presentation.reporter import Result


def went_back_result(done: WentBack) -> Result:
    """Return the result of ``restore --to-time``."""
    rows = sum(table.rows for table in done.tables)
    text = f"{done.environment} is back at {done.when:%Y-%m-%d %H:%M:%S%z}: {rows:,} rows in {len(done.tables)} tables"
    data = {"environment": done.environment, "when": done.when, "rows": rows, "kept": done.kept}
    return Result("mistudio-ops/restore/1", data, (Line(text),))
