"""How the outcome of verifying backups looks."""

from collections.abc import Sequence
from typing import Any

from mistudio_ops.operations.backup.verify import Verified
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/backup-verify/1"


def verify_result(outcomes: Sequence[Verified]) -> Result:
    """Return a row for each backup, and a verdict."""
    ok = all(one.ok for one in outcomes)
    blocks: tuple[Block, ...] = (_table(outcomes), *_hints(outcomes), _verdict(outcomes))
    return Result(SCHEMA, {"backups": [_document(one) for one in outcomes]}, blocks, ok=ok)


def _document(one: Verified) -> dict[str, Any]:
    return {
        "id": one.id,
        "level": one.level,
        "outcome": _word(one),
        "seconds": round(one.seconds, 3),
        "reason": one.reason,
        "hint": one.error.hint if one.error else None,
    }


def _table(outcomes: Sequence[Verified]) -> Table:
    rows = [
        (Cell(_word(one), "good" if one.ok else "warn" if one.error else "bad"), one.id, one.level,
         f"{one.seconds:.1f}", one.reason or "")
        for one in outcomes
    ]  # fmt: skip
    return Table(("outcome", "backup", "level", "s", "reason"), rows, right=frozenset({"s"}))


def _word(one: Verified) -> str:
    if one.ok:
        return "good"
    return "unknown" if one.error else "bad"


def _hints(outcomes: Sequence[Verified]) -> list[Line]:
    hints = dict.fromkeys(one.error.hint for one in outcomes if one.error and one.error.hint)
    return [Line(hint, "dim") for hint in hints]


def _verdict(outcomes: Sequence[Verified]) -> Line:
    good = sum(one.ok for one in outcomes)
    if good == len(outcomes):
        return Line(f"{good} of {len(outcomes)} verified, all good", "good")
    bad = sum(not one.ok and one.error is None for one in outcomes)
    unknown = len(outcomes) - good - bad
    said = [f"{bad} bad" if bad else "", f"{unknown} could not be verified" if unknown else ""]
    return Line(f"{good} of {len(outcomes)} good, {', '.join(part for part in said if part)}", "bad")
