"""The story of a restore."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace

from mistudio_ops.domain.restore_plan import Cut, Loss, RestorePlan, phase, plan_restore, remaining
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.drivers.lock import command_line, exclusive
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import marker
from mistudio_ops.errors import NothingFoundError, PreconditionError, UsageError, VerificationError
from mistudio_ops.operations.backup.loading import usable_jobs
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.facts import Found, gather
from mistudio_ops.operations.restore.interrupted import VERB, cut_restore, end_statements, refuse_leftovers
from mistudio_ops.operations.restore.kept import kept_database
from mistudio_ops.operations.restore.lab import HEALTH_SECONDS, Lab, deployed_lab
from mistudio_ops.operations.restore.result import RestoreResult
from mistudio_ops.operations.restore.run import Run
from mistudio_ops.operations.restore.steps import Work

Ask = Callable[[Loss], str | None]


class NotConfirmedError(UsageError):
    """Nobody confirmed what would be lost; ``result`` says it."""

    code = "not_confirmed"

    def __init__(self, result: RestoreResult, said: str | None) -> None:
        self.result = result
        name, backup = result.database, result.plan.backup
        wrong = "it was not confirmed" if said is None else f"{said!r} was said, and the database is called {name!r}"
        super().__init__(
            f"restoring backup {backup} replaces the database {name}, and {wrong}; nothing was changed",
            hint=f"mistudio-ops restore {backup} -e {result.environment} --confirm {name}",
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How to restore. ``confirm`` is the name of the database, as typed; ``lock_wait`` and ``health`` are seconds.

    ``jobs`` None: as many as the processors are good for.
    """

    confirm: str | None = None
    jobs: int | None = None
    dry_run: bool = False
    skip_safety: bool = False
    lock_wait: float = 0.0
    health: float = HEALTH_SECONDS


def restore(
    workplace: Workplace,
    backup: str,
    options: Options = Options(),
    *,
    ask: Ask | None = None,
    lab: Lab | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreResult:
    """Put ``backup`` in the place of the live database, which is kept under another name.

    ``ask`` shows what is lost and returns what was typed, where somebody can be asked.

    Raises:
        NotConfirmedError: the database's name was not given.
        NothingFoundError, VerificationError, PreconditionError, LockedError: it cannot be done; nothing was changed.
        RestoreFailedError: it was done and taken back.
    """
    begun = clock()
    place = opened(workplace, lab)
    with place.journal() as journal:
        refuse_leftovers(journal, place.access)
    found = gather(
        workplace, place.access, place.lab, backup,
        token=secrets.token_hex(4), jobs=usable_jobs(options.jobs), skip_safety=options.skip_safety,
    )  # fmt: skip
    planned = RestoreResult(
        workplace.environment.name, place.access.name, plan_restore(found.facts), found.loss, dry_run=options.dry_run
    )
    if options.dry_run:
        return planned
    _confirm(planned, options.confirm, ask)
    with place.locked(options.lock_wait), place.journal() as journal:
        refuse_leftovers(journal, place.access)
        facts = replace(
            found.facts, exists=databases.exists(place.access, place.access.name), units=place.lab.writers()
        )
        plan = plan_restore(facts)
        run = Run(_work(place, plan, found, options), journal, journal.begin(VERB, asdict(plan)), clock)
        run.carry_out(plan.steps)
    return finished(run, replace(planned, plan=plan), clock() - begun)


def resume(
    workplace: Workplace,
    options: Options = Options(),
    *,
    lab: Lab | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreResult:
    """Go on with the restore (or undo) that was cut off.

    Raises:
        NothingFoundError: none was.
        Others as ``restore``.
    """
    begun = clock()
    place = opened(workplace, lab)
    with place.locked(options.lock_wait), place.journal() as journal:
        cut = cut_restore(journal)
        if cut is None:
            raise NothingFoundError("no restore was cut off", hint="mistudio-ops restore status")
        end_statements(place.access, cut.plan.incoming)
        names = databases.databases(place.access)
        at = phase(cut.plan, names, cut.begun_steps)
        steps = remaining(cut.plan, at, cut.done, has_copy=cut.plan.incoming in names)
        run = Run(work_of(place, cut, options), journal, cut.operation, clock)
        workplace.reporter.note(f"going on with the {cut.plan.kind} of {cut.plan.backup}: {len(steps)} steps are left")
        run.carry_out(steps)
    planned = RestoreResult(workplace.environment.name, place.access.name, cut.plan, resumed=True)
    return finished(run, planned, clock() - begun)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a restore works: its database, its lab, its locks and its journal."""

    workplace: Workplace
    access: DatabaseAccess
    lab: Lab

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """Open the environment's journal."""
        journal = Journal(self.workplace.environment.paths.journal)
        try:
            yield journal
        finally:
            journal.close()

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """Hold the environment, and its backups: none may be pruned, pushed or made meanwhile.

        Raises:
            LockedError: somebody else holds one of them.
        """
        directory = self.workplace.directory
        with ExitStack() as held:
            held.enter_context(exclusive(self.workplace.environment.paths.lock, command_line(), wait=wait))
            if directory.root.is_dir():
                held.enter_context(directory.lock(wait))
            yield


def opened(workplace: Workplace, lab: Lab | None) -> Place:
    """Return where to work.

    Raises:
        PreconditionError: nothing was deployed there.
    """
    environment = workplace.environment
    access = workplace.access()
    if not marker(environment.paths).is_file():
        raise PreconditionError(
            f"nothing is deployed in {environment.state_dir}", hint=f"mistudio-ops deploy {environment.name}"
        )
    engine = ProcessEngine(environment.paths)
    return Place(workplace, access, lab or deployed_lab(environment, engine, workplace.reporter))


def work_of(place: Place, cut: Cut, options: Options) -> Work:
    """Return what is needed to go on with, or back from, a restore that was cut off."""
    work = Work(place.workplace, place.access, cut.plan, place.lab, lock_wait=options.lock_wait)
    work.health_seconds = options.health
    if cut.plan.kind == "restore":
        try:
            stored = place.workplace.directory.get(cut.plan.backup)
            work.identities = place.workplace.identities(stored, place.workplace.keys())
            work.stored = stored
        except (NothingFoundError, VerificationError) as error:
            place.workplace.reporter.warning(f"backup {cut.plan.backup} cannot be read any more: {error.message}")
    return work


def finished(run: Run, planned: RestoreResult, seconds: float) -> RestoreResult:
    """Return the result of a run that ended well."""
    work = run.work
    return replace(
        planned,
        kept=kept_database(work.access, work.plan.aside),
        safety=work.safety,
        seconds=round(seconds, 3),
        downtime=run.downtime,
        timings=tuple(run.timings),
        warnings=tuple(work.warnings),
    )


def _work(place: Place, plan: RestorePlan, found: Found, options: Options) -> Work:
    return Work(
        place.workplace,
        place.access,
        plan,
        place.lab,
        found.stored,
        found.identities,
        options.lock_wait,
        options.health,
    )


def _confirm(planned: RestoreResult, confirm: str | None, ask: Ask | None) -> None:
    if confirm is None and ask is not None and planned.loss is not None:
        confirm = ask(planned.loss)
    if confirm != planned.database:
        raise NotConfirmedError(planned, confirm)
