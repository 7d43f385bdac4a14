"""A training as its worker sees it: claimed, recorded, settled. Events follow each commit.

``attempts`` counts deaths in a row. It returns to 0 when a checkpoint beyond the one that the run was resumed from is
recorded: a run that kills its worker each time at the same place is failed after ``training_max_attempts``, and a run
of days that met three unrelated restarts is not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC

from psycopg.errors import CheckViolation

from mistudio_server.db.engine import Database, WriteSession
from mistudio_server.metrics.ingest import delete_metrics_after, write_metrics
from mistudio_server.metrics.partitions import premake
from mistudio_server.metrics.rows import MetricRow
from mistudio_server.realtime.events import (
    CheckpointCreated,
    Payload,
    TrainingCompleted,
    TrainingFailed,
    TrainingProgress,
    TrainingStatusChanged,
    make_event,
)
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.repositories import runs
from mistudio_server.repositories.runs import CheckpointRow, ClaimedTraining, HeldRun
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.run_outcomes import Outcome, Settlement, settle_training
from mistudio_server.statuses import TrainingStatus

_METRIC_FIELDS = (
    "loss", "loss_reconstructed", "l0_sparsity", "l1_sparsity", "fvu", "dead_neurons", "learning_rate", "grad_norm",
    "samples_per_second",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingRuns:
    """Use cases of one worker. ``clock`` gives seconds since 1970, for the events."""

    database: Database
    publisher: Publisher
    worker: str
    max_attempts: int
    clock: Callable[[], float] = time.time

    async def claim(self) -> ClaimedTraining | None:
        """Take the training that has been queued longest."""
        async with self.database.write() as session:
            run = await runs.claim_training(session, self.worker)
        if run is not None:
            await self._publish_status(run.id, TrainingStatus.RUNNING, run.step, run.request_id)
        return run

    async def wish(self, run: ClaimedTraining) -> TrainingStatus:
        """Return the run's status: ``pausing`` and ``stopping`` are what its user wants.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.read() as session:
            status = await runs.owned_status(session, "training", run.id, run.claim)
        if status is None:
            raise ClaimLostError(run.id, run.claim)
        return TrainingStatus(status)

    async def deleted(self, run: ClaimedTraining) -> bool:
        """Tell whether the row is gone, not only given away."""
        async with self.database.read() as session:
            return not await runs.exists(session, "training", run.id)

    async def heartbeat(self, run: ClaimedTraining) -> None:
        """Say that this worker is alive.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            _still_ours(run, await runs.heartbeat(session, "training", run.id, run.claim))

    async def started(self, run: ClaimedTraining, step: int, on_disk: Sequence[CheckpointRow]) -> None:
        """Record that the loop begins after ``step``: what is recorded beyond it is dropped, in one transaction.

        ``on_disk`` are the complete checkpoints up to ``step``; rows of others go, rows that are missing come.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            _still_ours(run, await runs.training_started(session, run.id, run.claim, step))
            await delete_metrics_after(session, run.id, step)
            known = set(await runs.checkpoint_steps(session, run.id))
            await runs.forget_checkpoints(session, run.id, known - {checkpoint.step for checkpoint in on_disk})
            for checkpoint in on_disk:
                if checkpoint.step not in known:
                    await runs.save_checkpoint(session, run.id, checkpoint)
        await self._publish_status(run.id, TrainingStatus.RUNNING, step, run.request_id)

    async def record(self, run: ClaimedTraining, rows: Sequence[MetricRow], *, announce_after: int = -1) -> int:
        """Write metrics and progress in one transaction and return how many rows were new.

        Rows at or before ``announce_after`` are written but not announced: they were sent again after a resume.

        Raises:
            ClaimLostError: the run is not ours any more; nothing was written.
        """
        try:
            written = await self._write(run, rows)
        except CheckViolation:
            # No partition: a clock that jumped, or partitions were not made in time. The run must not pay for it.
            await self._make_partitions(rows)
            written = await self._write(run, rows)
        for row in rows:
            if row.step > announce_after:
                await self._publish("training:progress", run.id, "progress", self._progress(run, row))
        return written

    async def checkpoint(
        self, run: ClaimedTraining, checkpoint: CheckpointRow, removed: Sequence[int], *, resumed_from: int
    ) -> None:
        """Record a checkpoint and forget those that it replaced; one beyond ``resumed_from`` forgives past deaths.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            _still_ours(run, await runs.lock_owned(session, "training", run.id, run.claim) is not None)
            identifier = await runs.save_checkpoint(session, run.id, checkpoint)
            await runs.forget_checkpoints(session, run.id, set(removed) - {checkpoint.step})
            if checkpoint.step > resumed_from:
                await runs.reset_attempts(session, run.id)
        created = CheckpointCreated(
            ts=self.clock(), request_id=run.request_id, training_id=run.id, checkpoint_id=identifier,
            step=checkpoint.step, size_bytes=checkpoint.size_bytes, sha256=checkpoint.sha256,
        )  # fmt: skip
        await self._publish("checkpoint:created", run.id, "checkpoints", created)

    async def settle(self, run: ClaimedTraining, outcome: Outcome, *, step: int | None = None) -> Settlement:
        """Let go of the run; ``step`` is where it stands, when that is known.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            held = await runs.lock_owned(session, "training", run.id, run.claim)
            if held is None:
                raise ClaimLostError(run.id, run.claim)
            settlement = await self._settle(session, held, outcome, step)
        await self._announce(held, settlement, step)
        return settlement

    async def take_over(self) -> list[str]:
        """Requeue what a dead process of our own instance name still holds; return the ids that are queued again."""
        async with self.database.write() as session:
            held = await runs.held_by(session, "training", self.worker)
            outcome = Outcome("died", message=f"worker {self.worker} was restarted without ending the run in order")
            settled = [(run, await self._settle(session, run, outcome, None)) for run in held]
        return await self._announce_all(settled)

    async def reap(self, timeout_seconds: float) -> list[str]:
        """Requeue runs whose worker fell silent, or fail them; return the ids that are queued again."""
        async with self.database.write() as session:
            settled = []
            for run in await runs.silent(session, "training", timeout_seconds):
                reason = f"worker {run.worker} sent no heartbeat for {timeout_seconds:g} s"
                settled.append((run, await self._settle(session, run, Outcome("died", message=reason), None)))
        return await self._announce_all(settled)

    async def _write(self, run: ClaimedTraining, rows: Sequence[MetricRow]) -> int:
        last = max(rows, key=lambda row: row.step)
        async with self.database.write() as session:
            progress = _last_metric(last)
            _still_ours(run, await runs.training_progress(session, run.id, run.claim, last.step, progress))
            return await write_metrics(session, rows)

    async def _make_partitions(self, rows: Sequence[MetricRow]) -> None:
        for day in sorted({row.timestamp.astimezone(UTC).date().replace(day=1) for row in rows}):
            async with self.database.write() as session:
                await premake(session, today=day, months=1)

    async def _settle(self, session: WriteSession, held: HeldRun, outcome: Outcome, step: int | None) -> Settlement:
        settlement = settle_training(
            TrainingStatus(held.status), held.attempts, outcome, max_attempts=self.max_attempts
        )
        await runs.training_settled(
            session, held.id, status=settlement.status, attempts=settlement.attempts, error=settlement.error,
            error_code=settlement.error_code, step=step,
        )  # fmt: skip
        return settlement

    async def _announce_all(self, settled: Sequence[tuple[HeldRun, Settlement]]) -> list[str]:
        for run, settlement in settled:
            await self._announce(run, settlement, None)
        return [run.id for run, settlement in settled if settlement.requeued]

    async def _announce(self, run: HeldRun, settlement: Settlement, step: int | None) -> None:
        at = run.step if step is None else step
        status = TrainingStatus(settlement.status)
        await self._publish_status(run.id, status, at, run.request_id)
        common = {"ts": self.clock(), "request_id": run.request_id, "training_id": run.id, "step": at}
        if status is TrainingStatus.COMPLETED:
            await self._publish("training:completed", run.id, "progress", TrainingCompleted.model_validate(common))
        elif status is TrainingStatus.FAILED:
            why = {"code": settlement.error_code or "internal_error", "message": settlement.error or "no reason given"}
            await self._publish("training:failed", run.id, "progress", TrainingFailed.model_validate(common | why))

    async def _publish_status(self, run_id: str, status: TrainingStatus, step: int, request_id: str | None) -> None:
        changed = TrainingStatusChanged(
            ts=self.clock(), request_id=request_id, training_id=run_id, status=status, step=step
        )
        await self._publish("training:status", run_id, "progress", changed)

    async def _publish(self, name: str, run_id: str, channel: str, payload: Payload) -> None:
        await self.publisher.publish(make_event(name, f"trainings/{run_id}/{channel}", payload))

    def _progress(self, run: ClaimedTraining, row: MetricRow) -> TrainingProgress:
        values = {name: getattr(row, name) for name in _METRIC_FIELDS}
        return TrainingProgress(
            ts=self.clock(), request_id=run.request_id, training_id=run.id, step=row.step,
            total_steps=run.total_steps, progress=min(1.0, row.step / run.total_steps), **values,
        )  # fmt: skip


def _last_metric(row: MetricRow) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(row, name) for name in (*_METRIC_FIELDS, "gpu_memory_used_mb")}
    return {"step": row.step, "timestamp": row.timestamp.isoformat(), **values}


def _still_ours(run: ClaimedTraining, ours: bool) -> None:
    if not ours:
        raise ClaimLostError(run.id, run.claim)
