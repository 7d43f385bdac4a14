"""After a restore, or in the middle of one that was cut off: abort, undo, finalize, status."""

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict

from mistudio_ops.domain.restore_plan import RestoreFacts, RestorePlan, phase, plan_undo
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.errors import NothingFoundError, PreconditionError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.interrupted import (
    VERB,
    InterruptedRestoreError,
    cut_restore,
    end_statements,
    refuse_leftovers,
)
from mistudio_ops.operations.restore.kept import kept_clusters, measured, remove_cluster
from mistudio_ops.operations.restore.lab import Lab
from mistudio_ops.operations.restore.restore import Options, Place, finished, opened, work_of
from mistudio_ops.operations.restore.result import AbortResult, FinalizeResult, RestoreResult, RestoreStatus
from mistudio_ops.operations.restore.run import Run, go_back
from mistudio_ops.operations.restore.steps import Work


def abort(
    workplace: Workplace,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    lab: Lab | None = None,
) -> AbortResult:
    """Go back to the database from before the restore that was cut off. May be done again.

    Where the restored one is live already, it is kept under another name.

    Raises:
        NothingFoundError: no restore was cut off, and none left anything.
    """
    place = opened(workplace, lab)
    name, live = workplace.environment.name, place.access.name
    with place.locked(options.lock_wait), place.journal() as journal:
        cut = cut_restore(journal)
        if cut is not None:
            end_statements(place.access, cut.plan.incoming)
        left = tuple(one.name for one in databases.list_ours(place.access, "restore"))
        if cut is None and not left:
            raise NothingFoundError("no restore was cut off", hint="mistudio-ops restore status")
        kept, swapped = None, False
        if cut is not None:
            at = phase(cut.plan, databases.databases(place.access), cut.begun_steps)
            swapped = at == "after" and cut.plan.existed
            kept = go_back(work_of(place, cut, options), at, automatic=False)
            journal.end(cut.operation, "failed", "aborted")
        for copy in left:
            databases.drop_database(place.access, copy)
    return AbortResult(name, live, cut.plan.backup if cut else None, left, swapped, kept)


def undo(
    workplace: Workplace,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    lab: Lab | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreResult:
    """Make the database from before the latest restore live again; the one that is live now is kept likewise.

    So an undo can be undone.

    Raises:
        NothingFoundError: none is kept.
        PreconditionError: several are, and the journal does not tell which.
        Others as ``restore``.
    """
    begun = clock()
    place = opened(workplace, lab)
    with place.locked(options.lock_wait), place.journal() as journal:
        refuse_leftovers(journal, place.access)
        plan = plan_undo(_undo_facts(place, journal))
        work = Work(workplace, place.access, plan, place.lab, lock_wait=options.lock_wait)
        work.health_seconds = options.health
        run = Run(work, journal, journal.begin(VERB, asdict(plan)), clock)
        run.carry_out(plan.steps)
    return finished(run, RestoreResult(workplace.environment.name, place.access.name, plan), clock() - begun)


def finalize(
    workplace: Workplace,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    lab: Lab | None = None,
) -> FinalizeResult:
    """Drop the databases from before restores, and remove the clusters from before restores to a moment.

    Raises:
        NothingFoundError: there is none.
        InterruptedRestoreError: a restore that was cut off may need one.
    """
    place = opened(workplace, lab)
    with place.locked(options.lock_wait), place.journal() as journal:
        _refuse_cut(journal)
        doomed = measured(place.access, databases.list_ours(place.access, "before"))
        clusters = kept_clusters(workplace.environment)
        if not doomed and not clusters:
            raise NothingFoundError("no database from before a restore is kept", hint="mistudio-ops restore status")
        for one in doomed:
            with workplace.reporter.step(f"drop {one.name}"):
                databases.drop_database(place.access, one.name)
        for cluster in clusters:
            with workplace.reporter.step(f"remove {cluster.name}"):
                remove_cluster(workplace.environment, cluster)
    return FinalizeResult(workplace.environment.name, (*doomed, *clusters))


def status(workplace: Workplace, *, lab: Lab | None = None) -> RestoreStatus:
    """Say where restores stand. Nothing is changed."""
    place = opened(workplace, lab)
    access = place.access
    with place.journal() as journal:
        cut = cut_restore(journal)
    names = databases.databases(access)
    others = (
        *measured(access, databases.list_ours(access, "restore", "before")),
        *kept_clusters(workplace.environment),
    )
    if cut is None:
        return RestoreStatus(workplace.environment.name, access.name, access.name in names, others=others)
    swapped = phase(cut.plan, names, cut.begun_steps) == "after"
    return RestoreStatus(
        workplace.environment.name, access.name, access.name in names, cut.plan, cut.begun, cut.done, swapped, others
    )


def _refuse_cut(journal: Journal) -> None:
    cut = cut_restore(journal)
    if cut is not None:
        raise InterruptedRestoreError(
            f"the {cut.plan.kind} of {cut.plan.backup} was cut off, and may need the database from before",
            hint="first mistudio-ops restore --resume or mistudio-ops restore --abort",
        )


def _undo_facts(place: Place, journal: Journal) -> RestoreFacts:
    access, token = place.access, secrets.token_hex(4)
    names = databases.databases(access)
    plan = _latest(place, journal, names)
    units = place.lab.writers()
    return RestoreFacts(
        backup=plan[0],
        database=access.name,
        token=token,
        incoming=plan[1],
        aside=databases.database_name(access.name, "before", token),
        exists=access.name in names,
        units=units,
        failing=tuple(place.lab.failures(0.0)) if units else (),
    )


def _latest(place: Place, journal: Journal, names: list[str]) -> tuple[str, str]:
    """Return the backup and the kept database of the newest restore or undo that still has one."""
    for document in journal.completed(VERB):
        plan = RestorePlan.parse(document)
        if plan.aside in names:
            return plan.backup, plan.aside
    kept = [one.name for one in databases.list_ours(place.access, "before")]
    if not kept:
        raise NothingFoundError(
            "no database from before a restore is kept: there is nothing to undo",
            hint="mistudio-ops backup list; restores make a backup first, of kind pre-restore",
        )
    if len(kept) > 1:
        raise PreconditionError(
            f"several databases are kept, and the journal does not say which is the latest: {', '.join(kept)}",
            hint="drop those that are not wanted in psql, then undo again",
        )
    return "an unknown backup", kept[0]
