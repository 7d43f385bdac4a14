"""Running a plan: each step as soon as the steps before it have ended, journalled before and after."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from mistudio_ops.domain.plan import Plan, PlannedStep
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.operations.deploy.context import CancelledError
from mistudio_ops.operations.deploy.steps import Done
from mistudio_ops.presentation.reporter import Reporter

#: All steps mostly wait; what they wait for shares the machine's cores.
THREADS = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """When a step began, in seconds after the deploy did, and how long it took."""

    step: str
    begun: float
    seconds: float


@dataclass(slots=True)
class PlanRun:
    """One run. ``cancelled`` tells steps that wait to stop waiting; ``undos`` is filled by the steps."""

    plan: Plan
    operation: int
    journal: Journal
    reporter: Reporter
    apply: Callable[[PlannedStep], Done]
    cancelled: threading.Event
    undos: list[tuple[str, Callable[[], None]]]
    clock: Callable[[], float] = time.monotonic
    timings: list[Timing] = field(default_factory=list)

    def run(self) -> None:
        """Run all steps. The first failure stops the rest, and is raised when all that had begun have ended."""
        left = list(self.plan.steps)
        done: set[str] = set()
        running: dict[Future[None], str] = {}
        failures: list[BaseException] = []
        started = self.clock()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="deploy") as pool:
            try:
                while (left and not failures) or running:
                    for step in self._ready(left, done) if not failures else ():
                        left.remove(step)
                        running[pool.submit(self._one, step, started)] = step.name
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._collect(future, running.pop(future), done, failures)
            except BaseException:
                self.cancelled.set()
                raise
        if failures:
            raise next((error for error in failures if not isinstance(error, CancelledError)), failures[0])

    def undo(self) -> list[str]:
        """Take back what can be taken back, last first; return what could not be."""
        self.cancelled.clear()  # taking back waits for units, too
        problems = []
        for name, undo in reversed(self.undos):
            try:
                with self.reporter.step(f"take back: {name}"):
                    undo()
            except Exception as error:  # noqa: BLE001 - each undo is tried, whatever became of the one before
                problems.append(f"{name}: {error}")
        return problems

    def _ready(self, left: Sequence[PlannedStep], done: set[str]) -> list[PlannedStep]:
        return [step for step in left if set(step.after) <= done]

    def _collect(self, future: Future[None], name: str, done: set[str], failures: list[BaseException]) -> None:
        error = future.exception()
        if error is None:
            done.add(name)
            return
        failures.append(error)
        self.cancelled.set()

    def _one(self, step: PlannedStep, started: float) -> None:
        begun = self.clock()
        with self.reporter.step(step.title) as shown, self.journal.step(self.operation, step.name):
            result = self.apply(step)
            if result.detail:
                shown.detail(result.detail)
        self.timings.append(Timing(step.name, round(begun - started, 3), round(self.clock() - begun, 3)))
