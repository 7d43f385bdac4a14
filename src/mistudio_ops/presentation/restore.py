"""How a restore, its loss and its aftermath look."""

from mistudio_ops.domain.quantities import human_size
from mistudio_ops.domain.restore_plan import Loss, TableLoss
from mistudio_ops.operations.restore.result import (
    AbortResult,
    FinalizeResult,
    KeptDatabase,
    RestoreResult,
    RestoreStatus,
)
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/restore/1"
ABORT_SCHEMA = "mistudio-ops/restore-abort/1"
FINALIZE_SCHEMA = "mistudio-ops/restore-finalize/1"
STATUS_SCHEMA = "mistudio-ops/restore-status/1"
_MINUTES_A_DAY = 1440
_MINUTES_AN_HOUR = 60


def restore_result(result: RestoreResult, *, ok: bool = True) -> Result:
    """Return the plan with what would be lost, or what was done; ``ok`` False: it was not confirmed."""
    if result.dry_run or not ok:
        return Result(SCHEMA, result, _plan_blocks(result), ok=ok)
    return Result(SCHEMA, result, _done_blocks(result))


def abort_result(result: AbortResult) -> Result:
    """Return what aborting dropped, and what is live."""
    blocks: list[Block] = [Line(f"the lab runs on {result.database} as it was before the restore", "good")]
    if result.dropped:
        blocks.append(Line(f"dropped {', '.join(result.dropped)}"))
    if result.kept:
        blocks.append(Line(f"the restored database served already, and is kept as {result.kept}", "warn"))
        blocks.append(Line("mistudio-ops restore finalize drops it", "dim"))
    return Result(ABORT_SCHEMA, result, blocks)


def finalize_result(result: FinalizeResult) -> Result:
    """Return what was dropped."""
    names = ", ".join(one.name for one in result.dropped)
    data = {"environment": result.environment, "dropped": result.dropped, "bytes": result.bytes}
    return Result(FINALIZE_SCHEMA, data, (Line(f"dropped {names}: {human_size(result.bytes)}", "good"),))


def status_result(status: RestoreStatus) -> Result:
    """Return where restores stand."""
    blocks: list[Block] = []
    if status.interrupted is not None:
        plan = status.interrupted
        live = "the restored database is live" if status.swapped else "the database from before is live"
        blocks.append(Line(f"the {plan.kind} of {plan.backup}, begun at {status.begun}, was cut off; {live}", "warn"))
        blocks.append(Line("mistudio-ops restore --resume goes on; mistudio-ops restore --abort goes back", "dim"))
    if not status.exists:
        blocks.append(Line(f"there is no database {status.database}", "bad"))
    if status.others:
        blocks.append(_databases(status.others))
    if not blocks:
        blocks.append(Line("no restore is under way, and no database from before one is kept", "good"))
    return Result(STATUS_SCHEMA, status, blocks)


def loss_blocks(loss: Loss) -> list[Block]:
    """Return what restoring would lose: minutes, rows per table, trainings."""
    blocks: list[Block] = [Line(f"the backup is {_age(loss.minutes)} old; what came after it is lost:", "warn")]
    if loss.problem is not None:
        blocks.append(Line(loss.problem, "warn"))
    changed = [one for one in loss.tables if one.now != one.backup]
    if changed:
        rows = [(one.table, _count(one.now), _count(one.backup), _difference(one)) for one in changed]
        blocks.append(
            Table(("table", "rows now", "in the backup", ""), rows, right=frozenset({"rows now", "in the backup"}))
        )
    elif loss.problem is None:
        blocks.append(Line("every table has as many rows as in the backup", "dim"))
    blocks += [
        Line(
            f"training {one.name} ({one.id}) is {one.status} at step {one.step}: it goes back to the backup's step",
            "warn",
        )
        for one in loss.running
    ]
    return blocks


def loss_text(loss: Loss) -> str:
    """Return the same as plain lines, to be shown before a question."""
    lines = []
    for block in loss_blocks(loss):
        if isinstance(block, Table):
            lines += ["  " + "  ".join(str(getattr(cell, "text", cell)) for cell in row) for row in block.rows]
        elif isinstance(block, Line):
            lines.append(block.text)
    return "\n".join(lines)


def _plan_blocks(result: RestoreResult) -> list[Block]:
    steps = Table(("", "step"), [(str(number), step.title) for number, step in enumerate(result.plan.steps, start=1)])
    blocks: list[Block] = [*(loss_blocks(result.loss) if result.loss else []), steps]
    return [*blocks, Line("nothing was changed", "dim")]


def _done_blocks(result: RestoreResult) -> list[Block]:
    rows = [(one.step, f"{one.seconds:.2f}") for one in result.timings]
    what = f"backup {result.plan.backup}" if result.plan.kind == "restore" else "the database from before the restore"
    blocks: list[Block] = [Table(("step", "took s"), rows, right=frozenset({"took s"}))] if rows else []
    blocks += [Line(text, "warn") for text in result.warnings]
    blocks.append(
        Line(
            f"{result.environment} runs on {what}: {result.seconds:.1f} s, {result.downtime:.1f} s of them without "
            "backends and workers",
            "good",
        )
    )
    if result.safety:
        blocks.append(Line(f"the database as it was is backup {result.safety}", "dim"))
    if result.kept is not None:
        blocks.append(Line(f"and is kept as {result.kept.name} ({human_size(result.kept.bytes)})", "dim"))
        blocks.append(
            Line("mistudio-ops restore --undo goes back to it; mistudio-ops restore finalize drops it", "dim")
        )
    return blocks


def _databases(found: tuple[KeptDatabase, ...]) -> Table:
    meaning = {
        "before": "from before a restore",
        "restore": "left of a restore",
        "cluster": "from before a restore to a moment",
    }
    rows = [(one.name, meaning.get(one.purpose, one.purpose), human_size(one.bytes)) for one in found]
    return Table(("database", "what it is", "size"), rows, right=frozenset({"size"}))


def _difference(one: TableLoss) -> Cell:
    if one.now is None:
        return Cell("is gone, comes back", "good")
    if one.backup is None:
        return Cell("is not in the backup", "bad")
    change = one.backup - one.now
    return Cell(f"{-change} lost", "bad") if change < 0 else Cell(f"{change} come back", "good")


def _count(rows: int | None) -> str:
    return "-" if rows is None else f"{rows:,}"


def _age(minutes: float) -> str:
    if minutes < _MINUTES_AN_HOUR:
        return f"{minutes:.0f} minutes"
    if minutes < _MINUTES_A_DAY:
        return f"{minutes / _MINUTES_AN_HOUR:.1f} hours"
    return f"{minutes / _MINUTES_A_DAY:.1f} days"
