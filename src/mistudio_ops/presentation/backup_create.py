"""How a new backup, and the list of backups, look."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import LEVELS, CheckpointFacts, StoredBackup, Verification
from mistudio_ops.domain.quantities import counted, human_age, human_size
from mistudio_ops.presentation.blocks import Cell, Line, Table
from mistudio_ops.presentation.reporter import Result

CREATE_SCHEMA = "mistudio-ops/backup/1"
LIST_SCHEMA = "mistudio-ops/backup-list/1"


def create_result(stored: StoredBackup, folder: Path) -> Result:
    """Return what was made: where, how large, how fast, and how far it was verified."""
    manifest, best = stored.manifest, best_verification(stored)
    if manifest is None:
        return Result(CREATE_SCHEMA, {"id": stored.id, "problem": stored.problem}, ok=False)
    entry = manifest.file("database")
    ratio = entry.plain_size / entry.size if entry and entry.size else 1.0
    rows = sum(table.rows for table in manifest.tables)
    seconds = manifest.seconds.get("all", 0.0)
    data = {
        "id": stored.id, "path": folder, "kind": manifest.kind, "created": manifest.created, "size": manifest.size,
        "rows": rows, "tables": len(manifest.tables), "seconds": seconds, "ratio": round(ratio, 2),
        "encrypted": manifest.encryption.scheme != "none", "checkpoints": manifest.checkpoints,
        "verified": best.level if best else None,
    }  # fmt: skip
    text = (
        f"backup {stored.id}: {counted(rows, 'row')} in {counted(len(manifest.tables), 'table')}, "
        f"{human_size(manifest.size)} ({ratio:.1f} times smaller) in {seconds:.1f} s"
    )
    kept = f"{_checkpoints(manifest.checkpoints)}{f'verified: {best.level}; ' if best else ''}{folder}"
    return Result(CREATE_SCHEMA, data, (Line(text, "good"), Line(kept, "dim")))


def list_result(root: Path | str, backups: Sequence[StoredBackup], now: datetime) -> Result:
    """Return one row for each backup, those that cannot be used with the reason."""
    data = {"directory": root, "backups": [backup_document(one, now) for one in backups]}
    if not backups:
        return Result(LIST_SCHEMA, data, (Line(f"no backup in {root}", "warn"), Line("mistudio-ops backup", "dim")))
    columns = ("id", "age", "kind", "size", "rows", "verified", "pinned", "problem")
    table = Table(columns, [_row(one, now) for one in backups], right=frozenset({"age", "size", "rows"}))
    good = sum(one.good for one in backups)
    total = human_size(sum(one.manifest.size for one in backups if one.manifest))
    verdict = Line(f"{good} of {len(backups)} are good, {total} in {root}", "good" if good == len(backups) else "warn")
    return Result(LIST_SCHEMA, data, (table, verdict))


def backup_document(stored: StoredBackup, now: datetime) -> dict[str, Any]:
    """Return the JSON form of one backup in a list."""
    manifest, failure = stored.manifest, stored.marks.failure
    best = best_verification(stored)
    return {
        "id": stored.id,
        "good": stored.good,
        "problem": stored.problem or (failure.reason if failure else None),
        "pinned": stored.marks.pinned,
        "pin_reason": stored.marks.pin_reason,
        "kind": manifest.kind if manifest else None,
        "created": manifest.created if manifest else None,
        "age_seconds": (now - manifest.created).total_seconds() if manifest else None,
        "size": manifest.size if manifest else None,
        "rows": sum(table.rows for table in manifest.tables) if manifest else None,
        "encrypted": manifest.encryption.scheme != "none" if manifest else None,
        "verified": {"level": best.level, "at": best.at} if best else None,
    }


def best_verification(stored: StoredBackup) -> Verification | None:
    """Return the newest success of the highest level that it ever passed."""
    passed = {one.level: one for one in stored.marks.verifications if one.ok}
    return next((passed[level] for level in reversed(LEVELS) if level in passed), None)


def _row(stored: StoredBackup, now: datetime) -> list[Cell | str]:
    manifest, document = stored.manifest, backup_document(stored, now)
    best, problem = best_verification(stored), document["problem"]
    return [
        stored.id,
        human_age(now - manifest.created) if manifest else "?",
        manifest.kind if manifest else "?",
        human_size(manifest.size) if manifest else "?",
        f"{document['rows']:,}" if manifest else "?",
        Cell(f"{best.level}, {human_age(now - best.at)} ago", "good") if best else Cell("never", "warn"),
        _pin(stored),
        Cell(problem or "", "bad"),
    ]


def _checkpoints(facts: CheckpointFacts | None) -> str:
    if facts is None:
        return ""
    return f"{facts.files} checkpoint files, {facts.added_files} of them new ({human_size(facts.added_bytes)}); "


def _pin(stored: StoredBackup) -> str:
    if stored.marks.damaged:
        return "marks unreadable"
    return (stored.marks.pin_reason or "yes") if stored.marks.pinned else ""
