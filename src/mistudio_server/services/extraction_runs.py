"""An extraction as its worker sees it. It has no checkpoint: one that was interrupted begins again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mistudio_server.db.engine import Database, WriteSession
from mistudio_server.realtime.events import AssetProgress, make_event
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.repositories import runs
from mistudio_server.repositories.runs import ClaimedExtraction, HeldRun
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.run_outcomes import Outcome, Settlement, settle_extraction
from mistudio_server.statuses import AssetStatus


@dataclass(frozen=True, slots=True)
class Extent:
    """What an extraction made."""

    rows: int
    d_model: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExtractionRuns:
    """Use cases of one worker. ``clock`` gives seconds since 1970, for the events."""

    database: Database
    publisher: Publisher
    worker: str
    max_attempts: int
    clock: Callable[[], float] = time.time

    async def claim(self) -> ClaimedExtraction | None:
        """Take the oldest queued extraction."""
        async with self.database.write() as session:
            run = await runs.claim_extraction(session, self.worker)
        if run is not None:
            await self._publish(run.id, AssetStatus.PROCESSING, 0.0, None, run.request_id)
        return run

    async def check(self, run: ClaimedExtraction) -> None:
        """Return when the run is still ours.

        Raises:
            ClaimLostError: it was given away, or deleted.
        """
        async with self.database.read() as session:
            if await runs.owned_status(session, "extraction", run.id, run.claim) is None:
                raise ClaimLostError(run.id, run.claim)

    async def deleted(self, run: ClaimedExtraction) -> bool:
        """Tell whether the row is gone, not only given away."""
        async with self.database.read() as session:
            return not await runs.exists(session, "extraction", run.id)

    async def heartbeat(self, run: ClaimedExtraction) -> None:
        """Say that this worker is alive.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            if not await runs.heartbeat(session, "extraction", run.id, run.claim):
                raise ClaimLostError(run.id, run.claim)

    async def record(self, run: ClaimedExtraction, done: int, total: int) -> None:
        """Record progress: ``done`` of ``total`` expected vectors.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        progress = min(1.0, done / total) if total > 0 else 0.0
        async with self.database.write() as session:
            if not await runs.extraction_progress(session, run.id, run.claim, progress):
                raise ClaimLostError(run.id, run.claim)
        await self._publish(run.id, AssetStatus.PROCESSING, progress, f"{done} of {total} vectors", run.request_id)

    async def settle(self, run: ClaimedExtraction, outcome: Outcome, extent: Extent | None = None) -> Settlement:
        """Let go of the run; ``extent`` is what a completed one made.

        Raises:
            ClaimLostError: the run is not ours any more.
        """
        async with self.database.write() as session:
            held = await runs.lock_owned(session, "extraction", run.id, run.claim)
            if held is None:
                raise ClaimLostError(run.id, run.claim)
            settlement = await self._settle(session, held, outcome, extent)
        await self._announce(held, settlement)
        return settlement

    async def take_over(self) -> list[str]:
        """Requeue what a dead process of our own instance name still holds; return the ids that are queued again."""
        async with self.database.write() as session:
            held = await runs.held_by(session, "extraction", self.worker)
            outcome = Outcome("died", message=f"worker {self.worker} was restarted without ending the run in order")
            settled = [(run, await self._settle(session, run, outcome, None)) for run in held]
        return await self._announce_all(settled)

    async def reap(self, timeout_seconds: float) -> list[str]:
        """Requeue runs whose worker fell silent, or fail them; return the ids that are queued again."""
        async with self.database.write() as session:
            settled = []
            for run in await runs.silent(session, "extraction", timeout_seconds):
                reason = f"worker {run.worker} sent no heartbeat for {timeout_seconds:g} s"
                settled.append((run, await self._settle(session, run, Outcome("died", message=reason), None)))
        return await self._announce_all(settled)

    async def _settle(
        self, session: WriteSession, held: HeldRun, outcome: Outcome, extent: Extent | None
    ) -> Settlement:
        settlement = settle_extraction(held.attempts, outcome, max_attempts=self.max_attempts)
        made = {} if extent is None else {
            "rows": extent.rows, "d_model": extent.d_model, "size_bytes": extent.size_bytes,
        }  # fmt: skip
        await runs.extraction_settled(
            session, held.id, status=settlement.status, attempts=settlement.attempts, error=settlement.error, **made
        )
        return settlement

    async def _announce_all(self, settled: Sequence[tuple[HeldRun, Settlement]]) -> list[str]:
        for run, settlement in settled:
            await self._announce(run, settlement)
        return [run.id for run, settlement in settled if settlement.requeued]

    async def _announce(self, run: HeldRun, settlement: Settlement) -> None:
        status = AssetStatus(settlement.status)
        progress = {AssetStatus.READY: 1.0, AssetStatus.QUEUED: 0.0}.get(status)
        await self._publish(run.id, status, progress, settlement.error, run.request_id)

    async def _publish(
        self, dataset_id: str, status: AssetStatus, progress: float | None, message: str | None, request_id: str | None
    ) -> None:
        payload = AssetProgress(
            ts=self.clock(), request_id=request_id, id=dataset_id, status=status, progress=progress, message=message
        )
        await self.publisher.publish(make_event("dataset:progress", f"datasets/{dataset_id}/progress", payload))
