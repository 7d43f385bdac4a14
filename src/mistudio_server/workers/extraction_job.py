"""Supervising one extraction: progress is recorded; a dataset that is deleted meanwhile takes its process along."""

import asyncio
import time
from collections.abc import Callable

import structlog

from mistudio_server.realtime.outage import Outage
from mistudio_server.repositories.runs import ClaimedExtraction
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.extraction_runs import Extent, ExtractionRuns
from mistudio_server.services.run_outcomes import Outcome
from mistudio_server.training.protocol import Extracted, Failed, Finished, Progress, Report, Warned
from mistudio_server.workers.child import Child
from mistudio_server.workers.database_patience import Patience
from mistudio_server.workers.timing import Timing

_PROGRESS_SECONDS = 0.5


class ExtractionJob:
    """One claimed extraction and its started child. ``stopping``: this worker is to end."""

    def __init__(
        self,
        run: ClaimedExtraction,
        runs: ExtractionRuns,
        child: Child,
        *,
        timing: Timing,
        stopping: Callable[[], bool],
        outage: Outage,
    ) -> None:
        self._log = structlog.stdlib.get_logger(__name__).bind(dataset_id=run.id, claim=run.claim)
        self._run, self._runs, self._child = run, runs, child
        self._timing, self._stopping = timing, stopping
        self._outage = outage
        self._patience = Patience(lambda: True, outage)
        self._next_progress = 0.0
        self._lost = False
        self.extent: Extent | None = None

    async def carry_out(self) -> Outcome | None:
        """Talk to the child until it has ended; return how, or None when the run was lost to someone else."""
        watch = asyncio.create_task(self._watch())
        try:
            outcome = await self._converse()
        except BaseException as error:
            self._child.kill()
            self._lost = self._lost or isinstance(error, ClaimLostError)
            if not self._lost:
                raise
            outcome = None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            wrong = await self._child.close()
        if self._lost:
            self._log.warning("run_lost")
            return None
        return outcome or Outcome("died", message=wrong or "it ended without a last report")

    async def _converse(self) -> Outcome | None:
        while batch := await self._child.batch(linger=self._timing.batch_seconds, limit=self._timing.batch_rows):
            for report in batch:
                outcome = await self._handle(report)
                if outcome is not None:
                    return outcome
        return None

    async def _handle(self, report: Report) -> Outcome | None:
        match report:
            case Progress():
                await self._record(report)
            case Warned():
                self._log.warning("extraction_warning", code=report.code, message=report.message)
            case Extracted():
                self.extent = Extent(report.rows, report.d_model, report.size_bytes)
                return Outcome("completed")
            case Finished():
                return Outcome("checkpointed")
            case Failed():
                message = f"{report.message}. {report.hint}" if report.hint else report.message
                return Outcome("failed", report.code, message)
            case _:
                self._log.warning("report_out_of_place", type=report.type)
        return None

    async def _record(self, report: Progress) -> None:
        """Record progress, which may be skipped during an outage: the next report supersedes it."""
        now = time.monotonic()
        if now >= self._next_progress or report.done >= report.total:
            self._next_progress = now + _PROGRESS_SECONDS
            await self._patience.once(lambda: self._runs.record(self._run, report.done, report.total))

    async def _watch(self) -> None:
        patience = Patience(lambda: True, self._outage)
        next_heartbeat = 0.0
        deadline: float | None = None
        while True:
            await asyncio.sleep(self._timing.poll_seconds)
            now = time.monotonic()
            try:
                await patience.once(lambda: self._runs.check(self._run))
                if now >= next_heartbeat:
                    await patience.once(lambda: self._runs.heartbeat(self._run))
                    next_heartbeat = now + self._timing.heartbeat_seconds
            except ClaimLostError:
                self._lost = True
                self._child.kill()
                return
            if self._stopping() and deadline is None:
                await self._child.finish("interrupted")
                deadline = now + self._timing.shutdown_seconds
            if deadline is not None and now > deadline:
                self._child.kill()
                return
