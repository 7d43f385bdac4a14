"""SQL of the runs that workers own: trainings and extractions. The queue is the rows whose status is ``queued``.

Every statement of a worker names the claim that it holds. A worker that lost the run (its heartbeat was late and the
reaper gave the run away) changes no row and learns so from the answer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import text
from sqlalchemy.sql.elements import TextClause

from mistudio_server.db.engine import ReadSession, WriteSession
from mistudio_server.ids import new_id

JobKind = Literal["training", "extraction"]


@dataclass(frozen=True, slots=True)
class ClaimedTraining:
    """A training that this worker owns now. ``dataset_path`` is relative to DATA_DIR.

    ``recorded_step`` is the step through which every metric of it is in this database.
    """

    id: str
    claim: int
    attempts: int
    step: int
    total_steps: int
    dataset_path: str
    hyperparameters: dict[str, Any]
    request_id: str | None
    recorded_step: int


@dataclass(frozen=True, slots=True)
class ClaimedExtraction:
    """An extraction that this worker owns now. Paths are relative to DATA_DIR."""

    id: str
    claim: int
    attempts: int
    output_path: str
    model_path: str | None
    text_path: str | None
    parameters: dict[str, Any]
    request_id: str | None


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A row that some worker owns, locked by this transaction."""

    id: str
    claim: int
    status: str
    attempts: int
    step: int
    worker: str | None
    request_id: str | None
    path: str | None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint to be recorded; ``path`` is relative to DATA_DIR."""

    step: int
    path: str
    size_bytes: int
    sha256: str


def _by_kind(template: str) -> dict[JobKind, TextClause]:
    """Return one statement per kind. What differs is the table, and which of its rows a worker owns."""
    training = {
        "table": "trainings", "own": "status IN ('running', 'pausing', 'stopping')",
        "step": "step", "path": "NULL::text",
    }  # fmt: skip
    extraction = {
        "table": "datasets", "own": "status = 'processing' AND extraction IS NOT NULL", "step": "0", "path": "path",
    }  # fmt: skip
    return {"training": text(template.format(**training)), "extraction": text(template.format(**extraction))}


# Metrics are recorded in order, so that the newest says through which step they are complete. Where none is left (old
# ones may be exported and dropped) the row says it: ``last_metric`` stays when a resume sets ``step`` back.
# The row is locked in a CTE of its own: as a subquery of the UPDATE it may be evaluated more than once.
_CLAIM_TRAINING = text("""
WITH next AS MATERIALIZED (
    SELECT id FROM trainings WHERE status = 'queued'
    ORDER BY queued_at NULLS FIRST, created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE trainings AS t
SET status = 'running', worker = :worker, claim = t.claim + 1, heartbeat_at = now(), updated_at = now(),
    started_at = COALESCE(t.started_at, now()), ended_at = NULL, error = NULL, error_code = NULL
FROM next, datasets AS d
WHERE t.id = next.id AND d.id = t.dataset_id
RETURNING t.id, t.claim, t.attempts, t.step, t.total_steps, d.path AS dataset_path, t.hyperparameters, t.request_id,
    COALESCE(
        GREATEST(
            (SELECT max(step) FROM training_metrics WHERE training_id = t.id),
            (SELECT max(step) FROM training_metrics_archive WHERE training_id = t.id)
        ),
        LEAST(t.step, (t.last_metric ->> 'step')::integer)
    ) AS recorded_step
""")
_CLAIM_EXTRACTION = text("""
WITH next AS MATERIALIZED (
    SELECT id FROM datasets WHERE status = 'queued' AND extraction IS NOT NULL
    ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE datasets AS d
SET status = 'processing', worker = :worker, claim = d.claim + 1, heartbeat_at = now(), updated_at = now(),
    progress = 0, error = NULL
FROM next
WHERE d.id = next.id
RETURNING d.id, d.claim, d.attempts, d.path AS output_path, d.extraction AS parameters, d.request_id,
    (SELECT path FROM models WHERE id = d.model_id) AS model_path,
    (SELECT path FROM datasets AS source WHERE source.id = d.text_dataset_id) AS text_path
""")

_HELD = "id, claim, status, attempts, {step} AS step, worker, request_id, {path} AS path FROM {table} WHERE {own}"
_STATUS = _by_kind("SELECT status FROM {table} WHERE id = :id AND claim = :claim AND {own}")
_EXISTS = _by_kind("SELECT 1 FROM {table} WHERE id = :id")
_HEARTBEAT = _by_kind("UPDATE {table} SET heartbeat_at = now() WHERE id = :id AND claim = :claim AND {own}")
_LOCK = _by_kind(f"SELECT {_HELD} AND id = :id AND claim = :claim FOR UPDATE")
_OF_WORKER = _by_kind(f"SELECT {_HELD} AND worker = :worker ORDER BY id FOR UPDATE SKIP LOCKED")
# Nobody could send a heartbeat while PostgreSQL was away: silence counts from its start.
_SILENT = _by_kind(
    f"SELECT {_HELD} AND GREATEST(heartbeat_at, pg_postmaster_start_time()) < now() - make_interval(secs => :seconds)"
    " ORDER BY id FOR UPDATE SKIP LOCKED"
)

_TRAINING_STARTED = text("""
UPDATE trainings SET step = :step, heartbeat_at = now(), updated_at = now()
WHERE id = :id AND claim = :claim AND status IN ('running', 'pausing', 'stopping')
""")
_TRAINING_PROGRESS = text("""
UPDATE trainings SET step = GREATEST(step, :step), last_metric = CAST(:metric AS jsonb), heartbeat_at = now()
WHERE id = :id AND claim = :claim AND status IN ('running', 'pausing', 'stopping')
""")
_TRAINING_RESET_ATTEMPTS = text("UPDATE trainings SET attempts = 0 WHERE id = :id")
_TRAINING_SETTLED = text("""
UPDATE trainings
SET status = :status, attempts = :attempts, error = :error, error_code = :error_code, heartbeat_at = NULL,
    step = COALESCE(:step, step), updated_at = now(),
    ended_at = CASE WHEN :status IN ('completed', 'failed', 'cancelled') THEN now() END
WHERE id = :id
""")
_EXTRACTION_PROGRESS = text("""
UPDATE datasets SET progress = :progress, heartbeat_at = now()
WHERE id = :id AND claim = :claim AND status = 'processing'
""")
_EXTRACTION_SETTLED = text("""
UPDATE datasets
SET status = :status, attempts = :attempts, error = :error, heartbeat_at = NULL, updated_at = now(),
    progress = CASE WHEN :status = 'ready' THEN 1 WHEN :status = 'queued' THEN 0 ELSE progress END,
    rows = COALESCE(:rows, rows), d_model = COALESCE(:d_model, d_model), size_bytes = COALESCE(:size_bytes, size_bytes)
WHERE id = :id
""")

_CHECKPOINT_SAVED = text("""
INSERT INTO checkpoints (id, training_id, step, path, size_bytes, sha256)
VALUES (:id, :training_id, :step, :path, :size_bytes, :sha256)
ON CONFLICT (training_id, step) DO UPDATE
SET path = excluded.path, size_bytes = excluded.size_bytes, sha256 = excluded.sha256
RETURNING id
""")
_CHECKPOINTS_GONE = text("DELETE FROM checkpoints WHERE training_id = :training_id AND step = ANY(:steps)")
_CHECKPOINT_STEPS = text("SELECT step FROM checkpoints WHERE training_id = :training_id")


async def claim_training(session: WriteSession, worker: str) -> ClaimedTraining | None:
    """Make ``worker`` the owner of the training that has been queued longest; None when there is none."""
    row = (await session.execute(_CLAIM_TRAINING, {"worker": worker})).mappings().one_or_none()
    return None if row is None else ClaimedTraining(**row)


async def claim_extraction(session: WriteSession, worker: str) -> ClaimedExtraction | None:
    """Make ``worker`` the owner of the oldest queued extraction; None when there is none."""
    row = (await session.execute(_CLAIM_EXTRACTION, {"worker": worker})).mappings().one_or_none()
    return None if row is None else ClaimedExtraction(**row)


async def owned_status(session: ReadSession, kind: JobKind, run_id: str, claim: int) -> str | None:
    """Return the run's status, or None when this claim owns it no longer."""
    status: str | None = (await session.execute(_STATUS[kind], {"id": run_id, "claim": claim})).scalar()
    return status


async def exists(session: ReadSession, kind: JobKind, run_id: str) -> bool:
    """Tell whether the row is still there."""
    return (await session.execute(_EXISTS[kind], {"id": run_id})).scalar() is not None


async def heartbeat(session: WriteSession, kind: JobKind, run_id: str, claim: int) -> bool:
    """Say that the owner is alive; False when this claim owns the run no longer."""
    return await _changed(session, _HEARTBEAT[kind], id=run_id, claim=claim)


async def lock_owned(session: WriteSession, kind: JobKind, run_id: str, claim: int) -> HeldRun | None:
    """Lock the run's row until the end of the transaction; None when this claim owns it no longer."""
    row = (await session.execute(_LOCK[kind], {"id": run_id, "claim": claim})).mappings().one_or_none()
    return None if row is None else HeldRun(**row)


async def held_by(session: WriteSession, kind: JobKind, worker: str) -> list[HeldRun]:
    """Lock and return the runs that ``worker`` owns."""
    return [HeldRun(**row) for row in (await session.execute(_OF_WORKER[kind], {"worker": worker})).mappings()]


async def silent(session: WriteSession, kind: JobKind, seconds: float) -> list[HeldRun]:
    """Lock and return the runs whose owner has sent no heartbeat for ``seconds``."""
    return [HeldRun(**row) for row in (await session.execute(_SILENT[kind], {"seconds": seconds})).mappings()]


async def training_started(session: WriteSession, training_id: str, claim: int, step: int) -> bool:
    """Record that the loop begins after ``step``."""
    return await _changed(session, _TRAINING_STARTED, id=training_id, claim=claim, step=step)


async def training_progress(
    session: WriteSession, training_id: str, claim: int, step: int, metric: dict[str, Any]
) -> bool:
    """Record the newest metric, lock the row and count as a heartbeat. ``step`` never goes back."""
    encoded = orjson.dumps(metric).decode()
    return await _changed(session, _TRAINING_PROGRESS, id=training_id, claim=claim, step=step, metric=encoded)


async def reset_attempts(session: WriteSession, training_id: str) -> None:
    """Forget the deaths so far."""
    await session.execute(_TRAINING_RESET_ATTEMPTS, {"id": training_id})


async def training_settled(
    session: WriteSession,
    training_id: str,
    *,
    status: str,
    attempts: int,
    error: str | None,
    error_code: str | None,
    step: int | None,
) -> None:
    """Write what became of a training whose row the transaction has locked."""
    values = {
        "id": training_id, "status": status, "attempts": attempts, "error": error, "error_code": error_code,
        "step": step,
    }  # fmt: skip
    await session.execute(_TRAINING_SETTLED, values)


async def extraction_progress(session: WriteSession, dataset_id: str, claim: int, progress: float) -> bool:
    """Record how far an extraction is (0 to 1)."""
    return await _changed(session, _EXTRACTION_PROGRESS, id=dataset_id, claim=claim, progress=progress)


async def extraction_settled(
    session: WriteSession,
    dataset_id: str,
    *,
    status: str,
    attempts: int,
    error: str | None,
    rows: int | None = None,
    d_model: int | None = None,
    size_bytes: int | None = None,
) -> None:
    """Write what became of an extraction whose row the transaction has locked."""
    values = {
        "id": dataset_id, "status": status, "attempts": attempts, "error": error, "rows": rows, "d_model": d_model,
        "size_bytes": size_bytes,
    }  # fmt: skip
    await session.execute(_EXTRACTION_SETTLED, values)


async def save_checkpoint(session: WriteSession, training_id: str, checkpoint: CheckpointRow) -> str:
    """Record a checkpoint and return its id; the same step again replaces what was known of it."""
    values = {
        "id": new_id("ckpt"), "training_id": training_id, "step": checkpoint.step, "path": checkpoint.path,
        "size_bytes": checkpoint.size_bytes, "sha256": checkpoint.sha256,
    }  # fmt: skip
    identifier: str = (await session.execute(_CHECKPOINT_SAVED, values)).scalar_one()
    return identifier


async def forget_checkpoints(session: WriteSession, training_id: str, steps: Collection[int]) -> None:
    """Remove the rows of checkpoints that are no longer on disk."""
    if steps:
        await session.execute(_CHECKPOINTS_GONE, {"training_id": training_id, "steps": sorted(steps)})


async def checkpoint_steps(session: ReadSession | WriteSession, training_id: str) -> Sequence[int]:
    """Return the steps of the recorded checkpoints."""
    return (await session.execute(_CHECKPOINT_STEPS, {"training_id": training_id})).scalars().all()


async def _changed(session: WriteSession, statement: TextClause, **values: object) -> bool:
    connection = await session.connection()
    return (await connection.execute(statement, values)).rowcount == 1
