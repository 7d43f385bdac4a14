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
from pathlib import Path

from mistudio_ops.domain.backup import StoredBackup, Verification
from mistudio_ops.domain.retention import PrunePlan, RetentionPolicy, plan_prune
from mistudio_ops.drivers.archive_file import DamagedFileError, verify_hash
from mistudio_ops.drivers.checkpoint_objects import UnknownReferencesError, object_path, objects_of, sweep_objects
from mistudio_ops.operations.backup.create import clean
from mistudio_ops.operations.backup.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was decided and done. ``failed`` names those that could not be removed, with the reason.

    ``turned_bad`` are backups that were thought good until they were read now; ``objects`` are checkpoint files that no
    backup refers to any more.
    """

    plan: PrunePlan
    dry_run: bool = False
    removed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    turned_bad: Mapping[str, str] = field(default_factory=dict)
    freed_bytes: int = 0
    objects: int = 0


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
    clean(workplace)
    with workplace.reporter.step("read what the removals count on") as step:
        plan, bad = _plan_on_sound_ground(workplace, policy, workplace.now())
        step.detail(f"{len(plan.relies_on)} backups")
    removed, failed = _remove(workplace, plan)
    freed = sum(one.backup.manifest.size for one in plan.remove if one.id in removed and one.backup.manifest)
    objects, object_bytes = _sweep(workplace)
    return Pruned(
        plan,
        removed=removed,
        failed=failed,
        turned_bad={one.id: one.problem or "" for one in bad.values()},
        freed_bytes=freed + object_bytes,
        objects=objects,
    )


def _plan_on_sound_ground(
    workplace: Workplace, policy: RetentionPolicy, now: datetime
) -> tuple[PrunePlan, dict[str, StoredBackup]]:
    """Plan, read what the plan counts on, and plan again with what was found, until all of it is sound."""
    bad: dict[str, StoredBackup] = {}
    sound: set[str] = set()
    objects: set[Path] = set()
    while True:
        # What was found here counts even where it cannot be written down: damaged marks, a full disk.
        known = [bad.get(one.id, one) for one in workplace.directory.all()]
        plan = plan_prune(known, policy, now)
        unread = [one.backup for one in plan.keep if one.id in plan.relies_on and one.id not in sound]
        if not unread:
            return plan, bad
        read = _read(workplace, unread[-1], objects)
        if read.good:
            sound.add(read.id)
        else:
            bad[read.id] = read
            _record(workplace, read, now)


def _read(workplace: Workplace, stored: StoredBackup, objects: set[Path]) -> StoredBackup:
    """Compare every file with its hash, and the checkpoint files too, but for ``objects``, which were read before.

    What the system refuses to read may be good: it stays, uncounted.
    """
    directory = workplace.directory
    try:
        for entry in stored.manifest.files if stored.manifest else ():
            verify_hash(directory.path(stored.id) / entry.name, entry)
        for one in objects_of(directory, stored):
            path = object_path(directory, stored, one.plain_sha256)
            if path not in objects:
                verify_hash(path, one.entry(path.name.removeprefix(one.plain_sha256)))
                objects.add(path)
    except (DamagedFileError, UnknownReferencesError) as error:
        cause = error.__cause__
        refused = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        return replace(stored, problem=error.message, unreadable=refused)
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


def _sweep(workplace: Workplace) -> tuple[int, int]:
    """Remove checkpoint files that no backup refers to; return how many, and their bytes."""
    try:
        return sweep_objects(workplace.directory)
    except UnknownReferencesError as error:
        workplace.reporter.warning(f"checkpoint files stay where they are: {error.message}", hint=error.hint)
    except OSError as error:
        workplace.reporter.warning(f"checkpoint files that nothing refers to could not be removed: {error}")
    return 0, 0
