"""Retention at a destination: the policy of the backups here, applied to the copies there.

A copy counts as good when its manifest is sound, all its files and checkpoint objects have their sizes, and no reading
of it failed. The manifest goes first: killed anywhere, what is left is no backup, and the next run removes it. Objects
go last, and only while every copy there says which ones it needs.
"""

from dataclasses import dataclass, replace

from mistudio_ops.domain.backup import MANIFEST_FILE, StoredBackup
from mistudio_ops.domain.backup_copy import OBJECTS, name_in
from mistudio_ops.domain.retention import Decision, RetentionPolicy, plan_prune
from mistudio_ops.drivers.destinations.choose import open_destination
from mistudio_ops.errors import NothingFoundError
from mistudio_ops.operations.backup.remote import Copies, Copy, look
from mistudio_ops.operations.backup.transfer import PATIENT, Patience, Transfer
from mistudio_ops.operations.backup.workplace import Workplace


@dataclass(frozen=True, slots=True)
class RemotePruned:
    """What was, or with ``dry_run`` would be, removed at ``url``, and the reason for every copy.

    ``leftovers`` are folders of copies that were never completed, or not wholly removed.
    """

    url: str
    dry_run: bool
    decisions: tuple[Decision, ...]
    leftovers: tuple[str, ...] = ()
    objects: int = 0
    bytes: int = 0


def prune_remote(
    workplace: Workplace,
    url: str,
    dry_run: bool = False,
    *,
    lock_wait: float = 0.0,
    patience: Patience = PATIENT,
) -> RemotePruned:
    """Apply the retention policy at a destination. Takes the lock.

    Raises:
        LockedError: somebody else works on these backups.
        DestinationError: it refuses.
        UnreachableError: it does not answer.
    """
    workplace.directory.prepare()
    with workplace.directory.lock(lock_wait):
        return prune_remote_locked(workplace, url, dry_run, patience=patience)


def prune_remote_locked(
    workplace: Workplace, url: str, dry_run: bool = False, *, patience: Patience = PATIENT
) -> RemotePruned:
    """As ``prune_remote``; the caller holds the lock.

    Copies of other environments are left alone, and so are the objects that they refer to.
    """
    with open_destination(url, workplace.environ, apart_from=workplace.directory.root) as destination:
        return prune_copies(workplace, Transfer(destination, patience), dry_run)


def prune_copies(workplace: Workplace, transfer: Transfer, dry_run: bool = False) -> RemotePruned:
    """As ``prune_remote_locked``, at an open destination."""
    copies = look(transfer)
    ours = [_with_pins_here(workplace, one) for one in copies.backups if _is_ours(workplace, one)]
    plan = plan_prune(ours, RetentionPolicy.of(workplace.environment.backup), workplace.now())
    leftovers = _leftovers(workplace, copies)
    doomed = [copy for one in plan.remove if (copy := copies.get(one.id)) is not None] + leftovers
    names = [name for copy in doomed for name in _in_order(copy)]
    objects = _unreferenced(copies, {copy.stored.id for copy in doomed})
    if not dry_run:
        _remove(workplace, transfer, [*names, *objects])
    size = sum(copies.sizes.get(name, 0) for name in (*names, *objects))
    unfinished = tuple(one.stored.id for one in leftovers)
    return RemotePruned(transfer.destination.url, dry_run, plan.decisions, unfinished, len(objects), size)


def _is_ours(workplace: Workplace, stored: StoredBackup) -> bool:
    return stored.manifest is None or stored.manifest.environment == workplace.environment.name


def _with_pins_here(workplace: Workplace, stored: StoredBackup) -> StoredBackup:
    """A pin that was set here after the copy was made holds there too."""
    here = _here(workplace, stored.id)
    if here is None or not (here.marks.pinned or here.marks.damaged) or stored.marks.pinned:
        return stored
    marks = replace(stored.marks, pinned=True, pin_reason=here.marks.pin_reason)
    return replace(stored, marks=marks)


def _here(workplace: Workplace, backup_id: str) -> StoredBackup | None:
    try:
        return workplace.directory.get(backup_id)
    except NothingFoundError:
        return None


def _leftovers(workplace: Workplace, copies: Copies) -> list[Copy]:
    """Return folders without a manifest that no push is going to complete.

    The backup is not here any more, or a newer one is there already. Where other environments have copies too, it may
    be theirs that is on its way.
    """
    if not all(_is_ours(workplace, one) for one in copies.backups):
        return []
    newest = max((one.sequence for one in copies.backups if one.good), default=0)
    return [copy for copy in copies.all if copy.begun and _sequence_here(workplace, copy) < newest]


def _sequence_here(workplace: Workplace, copy: Copy) -> int:
    here = _here(workplace, copy.stored.id)
    return here.sequence if here is not None else -1


def _in_order(copy: Copy) -> list[str]:
    manifest = name_in(copy.stored.id, MANIFEST_FILE)
    return sorted(copy.names, key=lambda name: name != manifest)


def _unreferenced(copies: Copies, gone: set[str]) -> list[str]:
    """Return objects that no remaining copy refers to; none as long as one of them does not say which it needs."""
    staying = [copy for copy in copies.all if copy.stored.id not in gone]
    if any(copy.objects is None for copy in staying):
        return []
    needed = {one.name for copy in staying for one in copy.objects or ()}
    return [name for name in copies.sizes if name.startswith(f"{OBJECTS}/") and name not in needed]


def _remove(workplace: Workplace, transfer: Transfer, names: list[str]) -> None:
    if not names:
        return
    with workplace.reporter.step(
        f"removing {len(names)} files at {transfer.destination.url}", total=len(names)
    ) as step:
        for name in names:
            transfer.remove(name)
            step.advance()
