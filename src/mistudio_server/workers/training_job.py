"""Supervising one training: what its process reports is recorded, what its user wishes is passed on.

Reports are handled in order. Metrics gather in batches, one commit each; while the database is away the batch is
repeated, the queue behind it fills, and the child waits at its pipe: nothing is lost, nothing grows without bound.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mistudio_server.metrics.rows import MetricRow
from mistudio_server.realtime.outage import Outage
from mistudio_server.repositories.runs import CheckpointRow, ClaimedTraining
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.run_outcomes import Outcome
from mistudio_server.services.training_runs import TrainingRuns
from mistudio_server.statuses import TrainingStatus
from mistudio_server.training.protocol import (
    CheckpointSaved,
    Confirm,
    Failed,
    Finished,
    Metric,
    Report,
    Started,
    Warned,
)
from mistudio_server.workers.checkpoint_folders import checkpoints_on_disk
from mistudio_server.workers.child import Child, FinishReason
from mistudio_server.workers.database_patience import Patience
from mistudio_server.workers.timing import Timing

_WISHES: dict[TrainingStatus, FinishReason] = {TrainingStatus.PAUSING: "paused", TrainingStatus.STOPPING: "stopped"}


@dataclass(frozen=True, slots=True)
class End:
    """How the conversation ended; ``step`` is where the run stands, when that is known."""

    outcome: Outcome
    step: int | None = None


class TrainingJob:
    """One claimed training and its started child. ``data_dir`` is absolute; ``stopping``: this worker is to end."""

    def __init__(
        self,
        run: ClaimedTraining,
        runs: TrainingRuns,
        child: Child,
        *,
        data_dir: Path,
        timing: Timing,
        stopping: Callable[[], bool],
        outage: Outage,
    ) -> None:
        self._log = structlog.stdlib.get_logger(__name__).bind(training_id=run.id, claim=run.claim)
        self._run, self._runs, self._child = run, runs, child
        self._data_dir, self._timing, self._stopping = data_dir, timing, stopping
        self._outage = outage
        self._recorder = Patience(self._given_up, outage)
        self._resumed_from = 0
        self._lost = False

    async def carry_out(self) -> End | None:
        """Talk to the child until it has ended; return how, or None when the run was lost to someone else."""
        watch = asyncio.create_task(self._watch())
        try:
            end = await self._converse()
        except BaseException as error:
            self._child.kill()
            self._lost = self._lost or isinstance(error, ClaimLostError)
            if not self._lost:
                raise
            end = None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            wrong = await self._child.close()
        if self._lost:
            self._log.warning("run_lost")
            return None
        return end or End(Outcome("died", message=wrong or "it ended without a last report"))

    async def _converse(self) -> End | None:
        """Handle reports until the last one; None when the child ended without it."""
        timing = self._timing
        while batch := await self._child.batch(linger=timing.batch_seconds, limit=timing.batch_rows):
            metrics = [report for report in batch if isinstance(report, Metric)]
            if metrics:
                await self._record(metrics)
            if not isinstance(batch[-1], Metric):  # only the last of a batch can be of another kind
                end = await self._handle(batch[-1])
                if end is not None:
                    return end
        return None

    async def _handle(self, report: Report) -> End | None:
        match report:
            case Started():
                await self._begin(report)
            case CheckpointSaved():
                await self._record_checkpoint(report)
            case Warned():
                self._log.warning("training_warning", code=report.code, message=report.message)
            case Finished():
                outcome = Outcome("completed" if report.reason == "completed" else "checkpointed")
                return End(outcome, report.step)
            case Failed():
                return End(Outcome("failed", report.code, _sentence(report)))
            case _:
                self._log.warning("report_out_of_place", type=report.type)
        return None

    async def _begin(self, report: Started) -> None:
        self._resumed_from = report.step
        folder = self._data_dir / "checkpoints" / self._run.id
        on_disk = await asyncio.to_thread(checkpoints_on_disk, self._data_dir, folder, up_to=report.step)
        await self._recorder.insist(lambda: self._runs.started(self._run, report.step, on_disk))
        self._log.info("training_started", step=report.step, device=report.device, features=report.dictionary_size)

    async def _record(self, metrics: list[Metric]) -> None:
        rows = [_row(self._run.id, metric) for metric in metrics]
        announce_after = self._resumed_from
        await self._recorder.insist(lambda: self._runs.record(self._run, rows, announce_after=announce_after))
        await self._child.send(Confirm(step=max(row.step for row in rows)))

    async def _record_checkpoint(self, saved: CheckpointSaved) -> None:
        path = Path(saved.path).resolve().relative_to(self._data_dir).as_posix()
        row = CheckpointRow(saved.step, path, saved.size_bytes, saved.sha256)
        await self._recorder.insist(
            lambda: self._runs.checkpoint(self._run, row, saved.removed_steps, resumed_from=self._resumed_from)
        )

    async def _watch(self) -> None:
        """Send heartbeats, and pass on what the user or the end of this worker asks for."""
        patience = Patience(lambda: True, self._outage)
        next_heartbeat = 0.0
        deadline: float | None = None
        while True:
            await asyncio.sleep(self._timing.poll_seconds)
            now = time.monotonic()
            try:
                wish = await patience.once(lambda: self._runs.wish(self._run))
                if now >= next_heartbeat:
                    await patience.once(lambda: self._runs.heartbeat(self._run))
                    next_heartbeat = now + self._timing.heartbeat_seconds
            except ClaimLostError:
                self._lost = True
                self._child.kill()
                return
            reason = "interrupted" if self._stopping() else _WISHES.get(wish) if wish else None
            if reason is not None and deadline is None:
                await self._child.finish(reason)
                deadline = now + self._timing.grace_seconds(reason)
            if deadline is not None and self._stopping():
                deadline = min(deadline, now + self._timing.grace_seconds("interrupted"))
            if deadline is not None and now > deadline:
                self._log.error("child_does_not_finish", reason=self._child.asked_to_finish)
                self._child.kill()
                return

    def _given_up(self) -> bool:
        return self._lost or self._stopping()


def _row(training_id: str, metric: Metric) -> MetricRow:
    values = metric.model_dump(exclude={"type", "timestamp"})
    return MetricRow(training_id=training_id, timestamp=datetime.fromtimestamp(metric.timestamp, UTC), **values)


def _sentence(report: Failed) -> str:
    return f"{report.message}. {report.hint}" if report.hint else report.message
