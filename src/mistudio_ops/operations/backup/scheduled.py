"""What the schedule runs each night: a backup, its proof, copies elsewhere, and only then the removal of old ones.

One lock is held from the first stage to the last. A stage that fails does not keep the harmless ones after it from
running; but nothing is removed in a night without a new and proven backup.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from mistudio_ops.domain.backup import StoredBackup, Verification
from mistudio_ops.domain.retention import TOLERANCE, newest_good
from mistudio_ops.domain.scheduled_run import ESSENTIAL, ScheduledRun, Stage, StageName
from mistudio_ops.drivers.encryption import WrongKeyError
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.errors import ExitCode, OpsError, VerificationError
from mistudio_ops.operations.backup.check import check, last_run, run_file, send_heartbeat, write_textfile
from mistudio_ops.operations.backup.notify import notify_outcome
from mistudio_ops.operations.backup.prune import Pruned, prune_locked
from mistudio_ops.operations.backup.workplace import Workplace

#: The archiver of 02:00, or a deploy, may take this long.
LOCK_WAIT = 2 * 3600.0
#: A week between proofs, less half a day: a run that begins a minute early must not put it off to the next night.
PROVE_EVERY = timedelta(days=6, hours=12)


@dataclass(frozen=True, slots=True)
class Stages:
    """What the stages do. All run with the directory's lock held."""

    create: Callable[[Workplace, float], StoredBackup]
    prove: Callable[[Workplace, StoredBackup], Verification]
    push: Callable[[Workplace, StoredBackup, str], str]
    prune: Callable[[Workplace], Pruned]
    prune_copies: Callable[[Workplace, str], str]


@dataclass(slots=True)
class _Night:
    """One run being made."""

    workplace: Workplace
    stages: Stages
    deadline: float
    done: list[Stage] = field(default_factory=list)
    made: StoredBackup | None = None

    def run(self) -> None:
        """Go through the stages."""
        self.attempt("create", self._create)
        newest = newest_good(self.workplace.directory.all())
        if newest is not None and _proof_is_due(self.workplace):
            self.attempt("restore verification", lambda: self._prove(newest))
        else:
            self.skip("restore verification", "not due" if newest else "there is no good backup")
        for url in self.workplace.environment.backup.destinations:
            self._copy(url)
        self._prune()

    def attempt(self, name: StageName, work: Callable[[], str]) -> None:
        """Run one stage and keep what came of it. Only what ends the whole program gets out."""
        began = monotonic()
        try:
            detail = work()
        except WrongKeyError as error:  # a machine that can write backups and not read them: no failure of theirs
            self.skip(name, f"it cannot be done here: {error.message}")
        except OpsError as error:
            self._failed(name, error.message, error.hint, began)
            if error.exit_code in {ExitCode.TERMINATED, ExitCode.INTERRUPTED}:
                raise
        except Exception as error:  # noqa: BLE001 - a bug in one stage must not keep the others from running
            self._failed(name, f"unexpected {type(error).__name__}: {error}", None, began)
        else:
            self.done.append(Stage(name, "ok", detail, seconds=round(monotonic() - began, 1)))

    def skip(self, name: StageName, reason: str) -> None:
        """Note why a stage was not run."""
        self.done.append(Stage(name, "skipped", reason))

    def _failed(self, name: StageName, what: str, hint: str | None, began: float) -> None:
        self.done.append(Stage(name, "failed", what, hint, round(monotonic() - began, 1)))

    def _create(self) -> str:
        self.made = self.stages.create(self.workplace, max(0.0, self.deadline - monotonic()))
        return self.made.id

    def _prove(self, newest: StoredBackup) -> str:
        done = self.stages.prove(self.workplace, newest)
        if not done.ok:
            raise VerificationError(
                f"backup {newest.id} failed its {done.level} verification: {done.reason}",
                hint="mistudio-ops backup; mistudio-ops backup verify latest --level restore",
            )
        return newest.id

    def _copy(self, url: str) -> None:
        newest = newest_good(self.workplace.directory.all())
        if newest is None:
            self.skip("push", f"there is no good backup for {url}")
            return
        self.attempt("push", lambda: self.stages.push(self.workplace, newest, url))

    def _prune(self) -> None:
        if any(one.outcome == "failed" and one.name in ESSENTIAL for one in self.done):
            self.skip("prune", "nothing is removed in a night without a proven backup")
            return
        self.attempt("prune", lambda: _pruned(self.stages.prune(self.workplace)))
        for url in self.workplace.environment.backup.destinations:
            self.attempt("prune", lambda url=url: self.stages.prune_copies(self.workplace, url))  # type: ignore[misc]


def run_scheduled(
    workplace: Workplace,
    *,
    stages: Stages | None = None,
    lock_wait: float = LOCK_WAIT,
    mask: Callable[[str], str] = str,
) -> ScheduledRun:
    """Do a night's work, remember and tell how it ended. What fails is in the stages of what is returned.

    Only what ends the program (SIGTERM, Ctrl-C) is raised.
    """
    begun, before = workplace.now(), last_run(workplace)
    night = _Night(workplace, stages or real_stages(), monotonic() + lock_wait)
    try:
        workplace.directory.prepare()
        with workplace.directory.lock(lock_wait):
            night.run()
    except OpsError as error:
        if not night.done:
            night.done.append(Stage("create", "failed", error.message, error.hint))
        elif error.exit_code in {ExitCode.TERMINATED, ExitCode.INTERRUPTED}:
            _remember(workplace, _outcome(night, begun))
            raise
    run = _outcome(night, begun)
    _tell(workplace, run, before, mask)
    return run


def real_stages() -> Stages:
    """Return what the stages do at night."""
    from mistudio_ops.operations.backup.create import create_locked
    from mistudio_ops.operations.backup.prune_remote import prune_remote_locked
    from mistudio_ops.operations.backup.push import push_locked
    from mistudio_ops.operations.backup.verify import verify_locked

    def push(workplace: Workplace, stored: StoredBackup, url: str) -> str:
        pushed = push_locked(workplace, stored, url)
        return f"{stored.id} to {url}: {pushed.outcome}"

    def prune_copies(workplace: Workplace, url: str) -> str:
        done = prune_remote_locked(workplace, url)
        return f"{sum(not one.keep for one in done.decisions)} removed at {url}"

    return Stages(
        create=lambda workplace, wait: create_locked(workplace, kind="scheduled", lock_wait=wait),
        prove=lambda workplace, stored: verify_locked(workplace, stored, "restore"),
        push=push,
        prune=prune_locked,
        prune_copies=prune_copies,
    )


def _proof_is_due(workplace: Workplace) -> bool:
    now = workplace.now()
    proofs = [one.marks.verified("restore") for one in workplace.directory.all() if one.good]
    return not any(at is not None and now - PROVE_EVERY < at <= now + TOLERANCE for at in proofs)


def _pruned(done: Pruned) -> str:
    if done.failed:
        reasons = "; ".join(f"{backup_id}: {reason}" for backup_id, reason in done.failed.items())
        raise OpsError(f"{len(done.failed)} could not be removed: {reasons}", hint="mistudio-ops backup prune")
    return f"{len(done.removed)} removed, {len(done.plan.keep)} kept"


def _outcome(night: _Night, begun: datetime) -> ScheduledRun:
    place = night.workplace
    made = night.made.id if night.made else None
    return ScheduledRun(place.environment.name, begun, place.now(), tuple(night.done), made)


def _tell(workplace: Workplace, run: ScheduledRun, before: ScheduledRun | None, mask: Callable[[str], str]) -> None:
    _remember(workplace, run)
    write_textfile(workplace, check(workplace))
    send_heartbeat(workplace, ok=not run.failures)
    notify_outcome(workplace, run, before, mask=mask)


def _remember(workplace: Workplace, run: ScheduledRun) -> None:
    with suppress(OSError):  # a full disk: the run failed already, and says so elsewhere
        write_atomically(run_file(workplace), run.render())
