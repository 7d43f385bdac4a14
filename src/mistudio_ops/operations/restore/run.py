"""Running the steps of a restore one after the other, journalled before and after; and the way back."""

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mistudio_ops.domain.restore_plan import Phase, RestoreStep, going_back, phase
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.errors import ExitCode, OpsError, PreconditionError
from mistudio_ops.operations.restore.interrupted import InterruptedRestoreError
from mistudio_ops.operations.restore.result import Timing
from mistudio_ops.operations.restore.steps import Work, apply, let_maintenance
from mistudio_ops.presentation.reporter import Reporter

#: Steps during which nobody writes.
_DOWN = frozenset({"stop", "place", "swap", "start", "health"})


class RestoreFailedError(OpsError):
    """The restored database did not become healthy, and the one from before is live again."""

    code = "restore_failed"


@dataclass(slots=True)
class Run:
    """One restore being carried out."""

    work: Work
    journal: Journal
    operation: int
    clock: Callable[[], float] = time.monotonic
    timings: list[Timing] = field(default_factory=list)

    @property
    def reporter(self) -> Reporter:
        """Where it is told."""
        return self.work.workplace.reporter

    @property
    def downtime(self) -> float:
        """Seconds without writers."""
        return round(sum(timing.seconds for timing in self.timings if timing.step in _DOWN), 3)

    def carry_out(self, steps: Iterable[RestoreStep]) -> None:
        """Run the steps; when one fails, go back to the database from before.

        Raises:
            RestoreFailedError: it failed after the swap, and was swapped back.
            OpsError: it failed before it; the live database was not touched.
        """
        try:
            for step in steps:
                self._one(step)
        except BaseException as error:
            try:
                self._go_back_after(error)
            except RestoreFailedError:
                raise
            except Exception as second:  # noqa: BLE001 - unended in the journal, --resume and --abort know what to do
                raise _not_taken_back(error, second) from error
            raise
        finally:
            let_maintenance(self.work)
        self.journal.end(self.operation, "done")

    def _one(self, step: RestoreStep) -> None:
        begun = self.clock()
        with self.reporter.step(step.title) as shown, self.journal.step(self.operation, step.name):
            shown.detail(apply(self.work, step))
        self.timings.append(Timing(step.name, round(self.clock() - begun, 3)))

    def _go_back_after(self, error: BaseException) -> None:
        let_maintenance(self.work)
        begun = [step.name for step in self.work.plan.steps]
        at = phase(self.work.plan, databases.databases(self.work.access), begun)
        go_back(self.work, at, automatic=True)
        ordinary = isinstance(error, Exception) and getattr(error, "exit_code", None) != ExitCode.TERMINATED
        self.journal.end(self.operation, "failed" if ordinary else "interrupted", str(error)[:2000])
        if at == "after" and ordinary and self.work.plan.existed:
            raise RestoreFailedError(
                f"{error}; the lab runs on the database from before again",
                hint="nothing was lost: mistudio-ops health says how it is now, mistudio-ops logs what went wrong",
            ) from error
        if at == "after" and not self.work.plan.existed:
            self.reporter.warning("there was no database before, so the restored one stays live")
        if at == "before":
            self.reporter.note("the live database was not touched; the lab runs on it")


def _not_taken_back(error: BaseException, second: Exception) -> InterruptedRestoreError:
    why = (str(second).strip() or type(second).__name__).splitlines()[0]
    return InterruptedRestoreError(
        f"{str(error) or type(error).__name__}; and it could not be taken back: {why}",
        hint="mistudio-ops deploy starts what is down; then mistudio-ops restore --abort, or restore --resume",
    )


def go_back(work: Work, at: Phase, *, automatic: bool) -> str | None:
    """Make the database from before live (again), and start what was stopped. May be done again.

    A restored database that people worked on is kept: its name is returned. ``automatic``: seconds after the swap
    nobody did, and it is dropped.
    """
    plan, access = work.plan, work.access
    way = going_back(plan, at)
    kept = None
    with work.workplace.reporter.step(f"go back to {plan.database} as it was before"):
        if way.swap and databases.exists(access, plan.aside):
            work.lab.stop(plan.units)
            kept = _name_for_restored(work, automatic=automatic)
            databases.swap(access, current=plan.database, incoming=plan.aside, aside=kept)
            if not automatic:
                work.lab.migrate(plan.database)  # a deploy may have brought newer code since
        if plan.kind == "restore" and (way.drop or (way.swap and automatic)):
            databases.drop_database(access, plan.incoming)
        if plan.kind == "restore" and work.stored is not None:
            work.checkpoints.discard()
        _start(work)
    return None if automatic else kept


def _name_for_restored(work: Work, *, automatic: bool) -> str:
    """An undo's goes back to the name that it had."""
    if automatic or work.plan.kind == "undo":
        return work.plan.incoming
    return databases.database_name(work.plan.database, "before", secrets.token_hex(4))


def _start(work: Work) -> None:
    try:
        work.lab.start(work.plan.units)
    except PreconditionError as error:
        work.workplace.reporter.warning(f"the units were not started: {error.message}", hint=error.hint)
