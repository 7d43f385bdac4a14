"""How a prune, and a pin, look."""

from typing import Any

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.domain.quantities import human_size
from mistudio_ops.domain.retention import Decision
from mistudio_ops.operations.backup.prune import Pruned
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table
from mistudio_ops.presentation.reporter import Result

PRUNE_SCHEMA = "mistudio-ops/backup-prune/1"
PIN_SCHEMA = "mistudio-ops/backup-pin/1"


def prune_result(done: Pruned) -> Result:
    """Return what stays and what goes, each with its reasons, and what was done."""
    data = {
        "dry_run": done.dry_run,
        "decisions": [_document(one) for one in done.plan.decisions],
        "removed": done.removed,
        "failed": done.failed,
        "turned_bad": done.turned_bad,
        "objects": done.objects,
        "freed_bytes": done.freed_bytes,
    }
    blocks: list[Block] = []
    if done.plan.decisions:
        blocks.append(Table(("", "id", "size", "why"), [_row(one) for one in done.plan.decisions], right=_RIGHT))
    return Result(PRUNE_SCHEMA, data, (*blocks, _verdict(done)), ok=not done.failed)


def pin_result(stored: StoredBackup) -> Result:
    """Return whether a backup is pinned now, and why."""
    data = {"id": stored.id, "pinned": stored.marks.pinned, "pin_reason": stored.marks.pin_reason}
    if not stored.marks.pinned:
        return Result(PIN_SCHEMA, data, (Line(f"{stored.id} is not pinned"),))
    why = f": {stored.marks.pin_reason}" if stored.marks.pin_reason else ""
    return Result(PIN_SCHEMA, data, (Line(f"{stored.id} is pinned{why}", "good"),))


_RIGHT = frozenset({"size"})


def _document(one: Decision) -> dict[str, Any]:
    return {"id": one.id, "keep": one.keep, "reasons": one.reasons, "size": _size(one)}


def _size(one: Decision) -> int | None:
    return one.backup.manifest.size if one.backup.manifest else None


def _row(one: Decision) -> list[Cell | str]:
    size = _size(one)
    word = Cell("keep", "good") if one.keep else Cell("remove", "warn")
    return [word, one.id, "?" if size is None else human_size(size), "; ".join(one.reasons)]


def _verdict(done: Pruned) -> Line:
    kept = len(done.plan.keep)
    if done.dry_run:
        return Line(f"{len(done.plan.remove)} would be removed, {kept} would stay; nothing was changed", "dim")
    text = f"{len(done.removed)} removed ({human_size(done.freed_bytes)}), {kept} stay"
    if done.failed:
        reasons = "; ".join(f"{backup_id}: {reason}" for backup_id, reason in done.failed.items())
        return Line(f"{text}, {len(done.failed)} could not be removed: {reasons}", "bad")
    return Line(text, "good")
