"""The steps of a restore. Each may be done again: it finds what is there already."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from mistudio_ops.domain.backup import Manifest, StoredBackup, Verification
from mistudio_ops.domain.quantities import counted
from mistudio_ops.domain.restore_plan import RestorePlan, RestoreStep
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import WrongKeyError
from mistudio_ops.drivers.snapshot import maintenance_session
from mistudio_ops.errors import LockedError, OpsError, PreconditionError, VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.checkpoints import PutBack
from mistudio_ops.operations.restore.lab import HEALTH_SECONDS, Lab
from mistudio_ops.operations.restore.settle import settle_runs

#: The copy is loaded by now: whoever maintains the live database is waited for this long at least.
PATIENCE_SECONDS = 60.0


class UnhealthyError(VerificationError):
    """The lab does not become healthy on the restored database."""

    code = "unhealthy"


@dataclass(slots=True)
class Work:
    """What the steps of one restore work with. ``held`` keeps maintenance out of the live database until the swap."""

    workplace: Workplace
    access: DatabaseAccess
    plan: RestorePlan
    lab: Lab
    stored: StoredBackup | None = None
    identities: tuple[Any, ...] = ()
    lock_wait: float = 0.0
    health_seconds: float = HEALTH_SECONDS
    safety: str | None = None
    warnings: list[str] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)
    holding: bool = False

    @property
    def backup(self) -> StoredBackup:
        """The backup that is restored."""
        if self.stored is None or self.stored.manifest is None:
            raise VerificationError(f"backup {self.plan.backup} is not there any more, or damaged")
        return self.stored

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        manifest = self.backup.manifest
        assert manifest is not None  # noqa: S101 - backup looked
        return manifest

    @property
    def checkpoints(self) -> PutBack:
        """Its checkpoints."""
        return PutBack(self.workplace, self.backup, self.identities, self.plan.token)


def apply(work: Work, step: RestoreStep) -> str:
    """Carry out one step and return what it did, for the person who watches."""
    return _ACTIONS[step.name](work)


def _safety(work: Work) -> str:
    from mistudio_ops.operations.backup.create import create_locked

    try:
        made = create_locked(work.workplace, kind="pre-restore", lock_wait=work.lock_wait)
    except LockedError:
        raise
    except OpsError as error:
        raise PreconditionError(
            f"the database as it is now cannot be backed up: {error.message}",
            hint="if it is beyond saving, run this again with --skip-safety-backup: it is kept under another name "
            f"anyway, until mistudio-ops restore finalize; {error.hint or ''}".rstrip("; "),
        ) from error
    work.safety = made.id
    return f"backup {made.id}"


def _copy(work: Work) -> str:
    databases.drop_database(work.access, work.plan.incoming)
    differs = databases.create_database(work.access, work.plan.incoming, work.manifest.database)
    if differs:
        work.warnings.append(differs)
    return differs or ""


def _load(work: Work) -> str:
    from mistudio_ops.operations.backup.loading import load

    plan = work.plan
    try:
        load(work.workplace, work.backup, work.access, plan.incoming, jobs=plan.jobs, identities=work.identities)
    except WrongKeyError:
        raise
    except VerificationError as error:
        _record(work, ok=False, reason=error.message)
        raise
    return ""


def _compare(work: Work) -> str:
    from mistudio_ops.operations.backup.loading import compare

    with work.access.session(work.plan.incoming) as connection:
        differences = compare(work.manifest, connection)
    _record(work, ok=not differences, reason="; ".join(differences[:5]) or None)
    if differences:
        raise VerificationError(
            f"what was loaded is not what backup {work.plan.backup} holds: {'; '.join(differences[:5])}",
            hint="mistudio-ops backup list shows others; the live database was not touched",
        )
    tables = work.manifest.tables
    return f"{counted(sum(one.rows for one in tables), 'row')} in {counted(len(tables), 'table')}, all there"


def _record(work: Work, *, ok: bool, reason: str | None = None) -> None:
    """Remember of the backup that it was restored, or that it cannot be. The directory's lock is ours."""
    done = Verification("restore", work.workplace.now(), ok=ok, reason=reason)
    work.workplace.directory.record(work.backup.id, done)


def _migrate(work: Work) -> str:
    if work.plan.kind == "undo":
        databases.unblock(work.access, work.plan.incoming)
    return f"at revision {work.lab.migrate(work.plan.incoming)}"


def _settle(work: Work) -> str:
    with work.access.session(work.plan.incoming) as connection:
        return f"{settle_runs(connection)} of them"


def _stage(work: Work) -> str:
    staged, present = work.checkpoints.stage()
    return f"{staged} checkpoints; {present} are there already"


def _stop(work: Work) -> str:
    hold_maintenance(work)
    work.lab.stop(work.plan.units)
    return ""


def _place(work: Work) -> str:
    return f"{work.checkpoints.place()} checkpoints"


def _swap(work: Work) -> str:
    hold_maintenance(work)
    plan = work.plan
    let_maintenance(work)
    work.warnings += databases.swap(work.access, current=plan.database, incoming=plan.incoming, aside=plan.aside)
    return f"the old one is kept as {plan.aside}" if databases.exists(work.access, plan.aside) else ""


def _start(work: Work) -> str:
    work.lab.start(work.plan.units)
    return ""


def _health(work: Work) -> str:
    failed = work.lab.failures(work.health_seconds)
    new = {name: said for name, said in failed.items() if name not in work.plan.failing or name == "postgres"}
    if new:
        raise UnhealthyError("; ".join(f"{name}: {said}" for name, said in new.items()))
    for name, said in failed.items():
        work.warnings.append(f"{name} fails, as it did before: {said}")
    return "healthy" if not failed else "no worse than before"


def hold_maintenance(work: Work) -> None:
    """Keep backups, archiver and migrations out of the live database from now on; a no-op when they are."""
    if work.holding or not databases.exists(work.access, work.plan.database):
        return
    try:
        session = maintenance_session(work.access, wait=max(work.lock_wait, PATIENCE_SECONDS))
        work.held.enter_context(session)
    except PreconditionError as error:  # nobody gets into it, so nobody maintains it
        work.workplace.reporter.debug(error.message)
    work.holding = True


def let_maintenance(work: Work) -> None:
    """Let them in again."""
    with suppress(OpsError):  # the session may be gone, and with it what it held
        work.held.close()
    work.holding = False


_ACTIONS: dict[str, Callable[[Work], str]] = {
    "safety": _safety,
    "copy": _copy,
    "load": _load,
    "compare": _compare,
    "migrate": _migrate,
    "settle": _settle,
    "stage": _stage,
    "stop": _stop,
    "place": _place,
    "swap": _swap,
    "start": _start,
    "health": _health,
}
