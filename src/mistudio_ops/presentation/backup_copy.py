"""How copies of backups elsewhere look."""

from collections.abc import Sequence
from datetime import datetime

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.domain.quantities import human_size
from mistudio_ops.operations.backup.prune_remote import RemotePruned
from mistudio_ops.operations.backup.pull import Pulled
from mistudio_ops.operations.backup.push import Pushed, PushReport
from mistudio_ops.presentation.backup_create import backup_document
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table
from mistudio_ops.presentation.reporter import Result

PUSH_SCHEMA = "mistudio-ops/backup-push/1"
PULL_SCHEMA = "mistudio-ops/backup-pull/1"
PRUNE_SCHEMA = "mistudio-ops/backup-prune-at/1"


def push_result(report: PushReport) -> Result:
    """Return one row for each copy, and the reasons of those that failed."""
    rows: list[Sequence[Cell | str]] = [_pushed_row(one) for one in report.pushed]
    rows += [(one.id, one.url, Cell("failed", "bad"), "", "") for one in report.failed]
    table = Table(("id", "destination", "copy", "sent", "s"), rows, right=frozenset({"sent", "s"}))
    blocks: list[Block] = [table]
    for failed in report.failed:
        blocks.append(Line(f"{failed.id} at {failed.url}: {failed.error}", "bad"))
        blocks += [Line(failed.hint, "dim")] if failed.hint else []
    return Result(PUSH_SCHEMA, report, blocks, ok=not report.failed)


def pull_result(pulled: Pulled) -> Result:
    """Return what came, and what to type next."""
    came = f"{human_size(pulled.bytes)} from {pulled.url}" if pulled.outcome == "brought" else "it was here already"
    first = Line(f"{pulled.id}, made {pulled.created:%Y-%m-%d %H:%M} UTC, is in {pulled.folder} ({came})", "good")
    proven = "" if pulled.restore_verified else f"mistudio-ops backup verify {pulled.id} --level restore, then "
    return Result(PULL_SCHEMA, pulled, (first, Line(f"{proven}mistudio-ops restore {pulled.id}", "dim")))


def prune_remote_result(pruned: RemotePruned, now: datetime) -> Result:
    """Return the decision for every copy, and what was freed."""
    rows: list[Sequence[Cell | str]] = [
        (Cell("keep", "good") if one.keep else Cell("remove", "warn"), one.id, ", ".join(one.reasons))
        for one in pruned.decisions
    ]
    removed = sum(not one.keep for one in pruned.decisions)
    done = "would be removed" if pruned.dry_run else "removed"
    left = f", {len(pruned.leftovers)} unfinished copies" if pruned.leftovers else ""
    verdict = Line(f"{removed} of {len(rows)} copies{left} {done} at {pruned.url}: {human_size(pruned.bytes)}")
    return Result(PRUNE_SCHEMA, _prune_document(pruned, now), (Table(("", "id", "why"), rows), verdict))


def _pushed_row(one: Pushed) -> Sequence[Cell | str]:
    return (one.id, one.url, Cell(one.outcome, "good"), human_size(one.bytes), f"{one.seconds:.1f}")


def _prune_document(pruned: RemotePruned, now: datetime) -> dict[str, object]:
    return {
        "url": pruned.url,
        "dry_run": pruned.dry_run,
        "copies": [_decision(one.backup, one.keep, one.reasons, now) for one in pruned.decisions],
        "unfinished": pruned.leftovers,
        "objects": pruned.objects,
        "bytes": pruned.bytes,
    }


def _decision(stored: StoredBackup, keep: bool, reasons: Sequence[str], now: datetime) -> dict[str, object]:
    return backup_document(stored, now) | {"keep": keep, "reasons": reasons}
