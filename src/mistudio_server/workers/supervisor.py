"""The part of a worker that owns runs. It lives in a thread of its own with an event loop of its own.

Celery's threads only wake it: a training of days is no Celery task, so it occupies none of them, has no visibility
timeout and no acknowledgement to lose, and goes on while Redis is away. What is to be done is in PostgreSQL.
"""

import asyncio
import random
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import stamina
import structlog

from mistudio_server.db.engine import Database, create_engine
from mistudio_server.errors import StudioError
from mistudio_server.metrics.partitions import premake
from mistudio_server.observability.context import bind_request_id
from mistudio_server.realtime.choose import create_publisher
from mistudio_server.realtime.outage import Outage
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.repositories.runs import ClaimedExtraction, ClaimedTraining
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.extraction_runs import ExtractionRuns
from mistudio_server.services.ports import JobKind
from mistudio_server.services.run_outcomes import Outcome
from mistudio_server.services.training_runs import TrainingRuns
from mistudio_server.settings import Settings
from mistudio_server.workers.assignment import extraction_assignment, training_assignment
from mistudio_server.workers.child import Child
from mistudio_server.workers.database_patience import Patience, is_outage
from mistudio_server.workers.extraction_job import ExtractionJob
from mistudio_server.workers.timing import Timing, timing_of
from mistudio_server.workers.training_job import End, TrainingJob

T = TypeVar("T")
CHILD_ARGV = (sys.executable, "-m", "mistudio_server.training.process")
#: A job uses one connection to record and one to watch.
_CONNECTIONS_PER_SLOT = 2
_CONNECTIONS_BESIDES = 2
_LAST_WRITES_SECONDS = 4.0


class Supervisor:
    """Claims queued runs into its slots and sees them through."""

    def __init__(
        self,
        settings: Settings,
        kinds: Sequence[JobKind],
        *,
        child_argv: Sequence[str] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._log = structlog.stdlib.get_logger(__name__)
        self._settings = settings
        self._kinds = list(kinds)
        self._child_argv = tuple(child_argv or CHILD_ARGV)
        self._timing = timing or timing_of(settings)
        self._data_dir = settings.data_dir.resolve()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakened = asyncio.Event()
        self._database_outage = Outage("database")

    # Called from other threads.

    @property
    def running(self) -> list[str]:
        """Ids of the runs in the slots."""
        return sorted(self._jobs)

    def wake(self) -> None:
        """Look at the queue now."""
        self._call_soon(self._wakened.set)

    def stop(self) -> None:
        """Begin to end: no new claims, children checkpoint, runs go back to the queue."""
        self._stopping.set()
        self.wake()

    def submit(self, work: Callable[[], Awaitable[T]]) -> "Future[T]":
        """Run ``work`` in the supervisor's loop, where its connections are.

        Raises:
            RuntimeError: the supervisor does not run.
        """
        if self._loop is None or self._loop.is_closed():
            raise RuntimeError("the supervisor is not running; the worker is starting or ending")

        async def await_it() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(await_it(), self._loop)

    # Run in the loop.

    async def run(self) -> None:
        """Own runs until ``stop``; return when every one is settled or the time for it is over."""
        self._loop = asyncio.get_running_loop()
        size = self._settings.training_slots * _CONNECTIONS_PER_SLOT + _CONNECTIONS_BESIDES
        name = f"mistudio {self._settings.mistudio_instance}"
        self._database = Database(create_engine(self._settings, application_name=name, pool_size=size))
        self._publisher: Publisher = create_publisher(self._settings)
        common: dict[str, Any] = {
            "database": self._database, "publisher": self._publisher, "worker": self._settings.mistudio_instance,
            "max_attempts": self._settings.training_max_attempts,
        }  # fmt: skip
        self._trainings, self._extractions = TrainingRuns(**common), ExtractionRuns(**common)
        stamina.instrumentation.set_on_retry_hooks([])  # an outage is logged once, not per attempt
        try:
            await self._take_over()
            await self._fill_slots_until_stopped()
            await self._let_go()
        except Exception as error:
            if not (self._stopping.is_set() and is_outage(error)):
                raise
        finally:
            await self._publisher.close()
            await self._database.close()
            self._loop = None

    async def reap(self) -> list[str]:
        """Requeue or fail the runs of silent workers; return the ids that are queued again."""
        timeout = self._timing.heartbeat_timeout_seconds
        requeued = [*await self._trainings.reap(timeout), *await self._extractions.reap(timeout)]
        if requeued:
            self._log.warning("runs_reaped", ids=requeued)
            self._wakened.set()
        return requeued

    async def premake_partitions(self) -> list[str]:
        """Make the partitions of the coming months; return the names of new ones."""
        async with self._database.write() as session:
            made = await premake(session)
        if made:
            self._log.info("partitions_made", names=made)
        return made

    async def _take_over(self) -> None:
        """Requeue what a dead process of our name left behind. Waits for the database as long as it takes."""
        patience = self._insistent()
        for runs in (self._trainings, self._extractions):
            ids = await patience.insist(runs.take_over)
            if ids:
                self._log.warning("runs_taken_over", ids=ids)

    async def _fill_slots_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._wakened.clear()
            while len(self._jobs) < self._settings.training_slots and not self._stopping.is_set():
                if not await self._claim_one():
                    break
            # Workers that started together look at different moments.
            wait = self._timing.idle_seconds * random.uniform(0.75, 1.25)  # noqa: S311
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakened.wait(), wait)

    async def _claim_one(self) -> bool:
        """Claim a run of the first kind that has one; kinds take turns. False when there is none."""
        patience = self._insistent()
        for kind in list(self._kinds):
            run = await patience.once(self._trainings.claim if kind == "training" else self._extractions.claim)
            if run is not None:
                self._kinds.append(self._kinds.pop(self._kinds.index(kind)))
                job = asyncio.create_task(self._see_through(run), name=run.id)
                self._jobs[run.id] = job
                job.add_done_callback(lambda _, run_id=run.id: self._free(run_id))  # type: ignore[misc]
                return True
        return False

    def _free(self, run_id: str) -> None:
        self._jobs.pop(run_id, None)
        self._wakened.set()

    async def _let_go(self) -> None:
        """Wait for the jobs, which see that we are stopping; cut off what does not end in time."""
        if not self._jobs:
            return
        self._log.info("worker_waits_for_runs", ids=self.running)
        _, late = await asyncio.wait(self._jobs.values(), timeout=self._timing.shutdown_seconds + _LAST_WRITES_SECONDS)
        for job in late:
            self._log.error("run_cut_off", id=job.get_name())
            job.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    async def _see_through(self, run: ClaimedTraining | ClaimedExtraction) -> None:
        if run.request_id is not None:
            bind_request_id(run.request_id)
        self._log.info("run_claimed", id=run.id, claim=run.claim, attempts=run.attempts)
        try:
            if isinstance(run, ClaimedTraining):
                await self._see_training_through(run)
            else:
                await self._see_extraction_through(run)
        except ClaimLostError:
            self._log.warning("run_lost", id=run.id, claim=run.claim)
        except Exception as error:  # noqa: BLE001 - one run's trouble must not end the others
            self._log.exception("run_not_seen_through", id=run.id, claim=run.claim)
            await self._blame_worker(run, error)

    async def _blame_worker(self, run: ClaimedTraining | ClaimedExtraction, error: Exception) -> None:
        """Give the run another try, a bounded number of times. Should this fail too, the reaper does it."""
        outcome = Outcome("died", message=f"its worker failed: {type(error).__name__}: {error}")
        try:
            if isinstance(run, ClaimedTraining):
                await self._trainings.settle(run, outcome)
            else:
                await self._extractions.settle(run, outcome)
        except Exception as second:  # noqa: BLE001 - the reaper is the net below
            self._log.warning("run_left_to_the_reaper", id=run.id, error=str(second))

    async def _see_training_through(self, run: ClaimedTraining) -> None:
        end = await self._train(run)
        patience = self._insistent()
        if end is None:
            if await patience.insist(lambda: self._trainings.deleted(run)):
                await self._remove(f"checkpoints/{run.id}")
            return
        settled = await patience.insist(lambda: self._trainings.settle(run, end.outcome, step=end.step))
        self._log.info("run_settled", id=run.id, status=settled.status, attempts=settled.attempts, error=settled.error)

    async def _train(self, run: ClaimedTraining) -> End | None:
        try:
            assignment = training_assignment(run, self._data_dir, self._settings.torch_num_threads)
            child = await Child.start(self._child_argv, assignment)
        except StudioError as error:
            return End(_refused(error))
        except OSError as error:
            return End(Outcome("died", message=f"its process could not be started: {error}"))
        job = TrainingJob(
            run, self._trainings, child,
            data_dir=self._data_dir, timing=self._timing, stopping=self._stopping.is_set,
            outage=self._database_outage,
        )  # fmt: skip
        return await job.carry_out()

    async def _see_extraction_through(self, run: ClaimedExtraction) -> None:
        patience = self._insistent()
        try:
            assignment = extraction_assignment(run, self._data_dir, self._settings.torch_num_threads)
            child = await Child.start(self._child_argv, assignment)
        except StudioError as error:
            refused = _refused(error)
            await patience.insist(lambda: self._extractions.settle(run, refused))
            return
        except OSError as error:
            died = Outcome("died", message=f"its process could not be started: {error}")
            await patience.insist(lambda: self._extractions.settle(run, died))
            return
        job = ExtractionJob(
            run, self._extractions, child,
            timing=self._timing, stopping=self._stopping.is_set, outage=self._database_outage,
        )  # fmt: skip
        outcome = await job.carry_out()
        if outcome is None:
            if await patience.insist(lambda: self._extractions.deleted(run)):
                await self._remove(run.output_path)
            return
        if outcome.kind != "completed":
            await self._remove(run.output_path)
        settled = await patience.insist(lambda: self._extractions.settle(run, outcome, job.extent))
        self._log.info("run_settled", id=run.id, status=settled.status, attempts=settled.attempts, error=settled.error)

    async def _remove(self, relative: str) -> None:
        """Remove a folder that we made, and what a killed process left of it under a temporary name."""
        folder = self._data_dir / relative
        if folder.parent.parent != self._data_dir:
            raise ValueError(f"{relative} is not a folder of one of our runs")
        for path in (folder, *folder.parent.glob(f".tmp-{folder.name}-*")):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def _insistent(self) -> Patience:
        """Return the patience of someone who waits for the database until this worker is to end."""
        return Patience(self._stopping.is_set, self._database_outage)

    def _call_soon(self, callback: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has just closed
                loop.call_soon_threadsafe(callback)


def _refused(error: StudioError) -> Outcome:
    return Outcome("failed", error.code, f"{error.detail} {error.hint or ''}".strip())
