"""``backup prune``: remove the backups that the policy does not keep.

Marks may be old: a disk can have rotted since. So the backups that a removal counts on are read before anything is
removed: the newest good one, the newest that was proven by a restore, and for each removal the kept one that is next
to it. One that turns out to be bad is marked so, and the plan is made again. Where nothing is to be removed nothing is
read.

Killed anywhere, the next run goes on: a backup loses its name first and its files after.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from mistudio_ops.domain.backup import StoredBackup, Verification
from mistudio_ops.domain.retention import PrunePlan, RetentionPolicy, plan_prune
from mistudio_ops.drivers.archive_file import DamagedFileError, verify_hash
from mistudio_ops.operations.backup.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was decided and done. ``failed`` names those that could not be removed, with the reason.

    ``turned_bad`` are backups that were thought good until they were read now.
    """

    plan: PrunePlan
    dry_run: bool = False
    removed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    turned_bad: Mapping[str, str] = field(default_factory=dict)
    freed_bytes: int = 0
    left_over: tuple[str, ...] = ()


def prune(
    workplace: Workplace, policy: RetentionPolicy | None = None, *, dry_run: bool = False, lock_wait: float = 0
) -> Pruned:
    """Remove what ``policy`` (default: what is configured) does not keep; a dry run changes nothing.

    Raises:
        LockedError: somebody writes there.
    """
    policy = policy or RetentionPolicy.of(workplace.environment.backup)
    directory = workplace.directory
    if dry_run or not directory.root.is_dir():
        return Pruned(plan_prune(directory.all(), policy, workplace.now()), dry_run=dry_run)
    with directory.lock(lock_wait):
        return prune_locked(workplace, policy)


def prune_locked(workplace: Workplace, policy: RetentionPolicy | None = None) -> Pruned:
    """Prune as ``prune`` does, with the directory's lock held by the caller."""
    policy = policy or RetentionPolicy.of(workplace.environment.backup)
    left_over = workplace.directory.clean()
    with workplace.reporter.step("read what the removals count on") as step:
        plan, bad = _plan_on_sound_ground(workplace, policy, workplace.now())
        step.detail(f"{len(plan.relies_on)} backups")
    removed, failed = _remove(workplace, plan)
    freed = sum(one.backup.manifest.size for one in plan.remove if one.id in removed and one.backup.manifest)
    return Pruned(
        plan,
        removed=removed,
        failed=failed,
        turned_bad={one.id: one.problem or "" for one in bad.values()},
        freed_bytes=freed,
        left_over=tuple(left_over),
    )


def _plan_on_sound_ground(
    workplace: Workplace, policy: RetentionPolicy, now: datetime
) -> tuple[PrunePlan, dict[str, StoredBackup]]:
    """Plan, read what the plan counts on, and plan again with what was found, until all of it is sound."""
    bad: dict[str, StoredBackup] = {}
    sound: set[str] = set()
    while True:
        # What was found here counts even where it cannot be written down: damaged marks, a full disk.
        known = [bad.get(one.id, one) for one in workplace.directory.all()]
        plan = plan_prune(known, policy, now)
        unread = [one.backup for one in plan.keep if one.id in plan.relies_on and one.id not in sound]
        if not unread:
            return plan, bad
        read = _read(workplace, unread[-1])
        if read.good:
            sound.add(read.id)
        else:
            bad[read.id] = read
            _record(workplace, read, now)


def _read(workplace: Workplace, stored: StoredBackup) -> StoredBackup:
    """Compare every file with its hash. What the system refuses to read may be good: it stays, uncounted."""
    folder = workplace.directory.path(stored.id)
    try:
        for entry in stored.manifest.files if stored.manifest else ():
            verify_hash(folder / entry.name, entry)
    except DamagedFileError as error:
        return replace(stored, problem=error.message, unreadable=isinstance(error.__cause__, OSError))
    except OSError as error:
        return replace(stored, problem=str(error), unreadable=True)
    return stored


def _record(workplace: Workplace, bad: StoredBackup, now: datetime) -> None:
    found = "cannot be read" if bad.unreadable else "turned bad"
    workplace.reporter.warning(
        f"backup {bad.id} {found}: {bad.problem}", hint=f"mistudio-ops backup verify {bad.id} --level hash"
    )
    if bad.unreadable:
        return
    try:
        workplace.directory.record(bad.id, Verification("hash", now, ok=False, reason=bad.problem))
    except OSError as error:  # a full disk must not keep us from making room
        workplace.reporter.warning(f"that could not be written down: {error}")


def _remove(workplace: Workplace, plan: PrunePlan) -> tuple[tuple[str, ...], dict[str, str]]:
    """Remove the oldest first; what cannot be removed does not hold up the rest."""
    removed: list[str] = []
    failed: dict[str, str] = {}
    for decision in plan.remove:
        with workplace.reporter.step(f"remove {decision.id}") as step:
            try:
                workplace.directory.remove(decision.id)
            except OSError as error:
                failed[decision.id] = error.strerror or str(error)
                step.fail(failed[decision.id])
            else:
                removed.append(decision.id)
                step.detail(decision.reasons[0])
    return tuple(removed), failed
