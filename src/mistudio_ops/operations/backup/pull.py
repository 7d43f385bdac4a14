"""Bringing a copy back: ``backup pull``.

A machine that lost everything gets its lab back so:

1. Install MiStudio with the extra ``offsite``; give it the private key or the passphrase that the backups were made
   with, and what the destination asks for (an SSH key, AWS_* variables).
2. ``mistudio-ops deploy`` makes an empty environment of the same name.
3. ``mistudio-ops backup pull latest --from URL`` brings the newest good copy, and the checkpoints that it needs.
4. ``mistudio-ops restore latest`` puts it in place.

What comes is checked while it is copied, in a partial folder: a pull that is killed leaves no backup behind, and the
checkpoint objects that did arrive are not sent again.
"""

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from mistudio_ops.domain.backup import Manifest, Marks, StoredBackup, Verification
from mistudio_ops.domain.backup_copy import name_in, travelling
from mistudio_ops.drivers.archive_file import DamagedFileError, verify_hash
from mistudio_ops.drivers.backup_directory import LATEST, BackupDirectory, sync_folder
from mistudio_ops.drivers.destinations.choose import open_destination
from mistudio_ops.drivers.encryption import KEY_FILE, install_key
from mistudio_ops.errors import NothingFoundError, PreconditionError, UsageError, VerificationError
from mistudio_ops.operations.backup.copied_objects import CopiedObject
from mistudio_ops.operations.backup.remote import Copies, Copy, look
from mistudio_ops.operations.backup.transfer import PATIENT, Patience, Transfer
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.reporter import Step

#: Bytes that stay free beside what is brought here.
_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """What ``pull`` did: ``objects`` are checkpoint files that were not here, ``bytes`` all that came."""

    id: str
    url: str
    outcome: Literal["brought", "already here"]
    created: datetime
    folder: Path
    objects: int = 0
    bytes: int = 0
    restore_verified: bool = False


def pull(workplace: Workplace, which: str, url: str, *, lock_wait: float = 0.0, patience: Patience = PATIENT) -> Pulled:
    """Bring the copy that ``which`` names (an id, the start of one, or ``latest``) here. Takes the lock.

    Raises:
        NothingFoundError: there is none, or none that is good.
        VerificationError: it is damaged there. Nothing of it stays here.
        PreconditionError: another backup has its id here, the disk is too small, or the destination refuses.
        UnreachableError: it does not answer, or the connection was cut time and again.
    """
    directory = workplace.directory
    with open_destination(url, workplace.environ, apart_from=directory.root) as destination:
        directory.prepare()
        with directory.lock(lock_wait):
            transfer = Transfer(destination, patience)
            copy, manifest = _find(look(transfer), which, workplace.environment.name, url)
            here = _here(directory, manifest)
            if here is not None and here.good and _objects_are_here(directory, copy):
                return Pulled(manifest.id, url, "already here", manifest.created, directory.path(manifest.id))
            return _bring(workplace, transfer, copy, manifest, here)


def _bring(
    workplace: Workplace, transfer: Transfer, copy: Copy, manifest: Manifest, here: StoredBackup | None
) -> Pulled:
    directory = workplace.directory
    directory.clean()
    _warn_of_order(workplace, manifest)
    with workplace.reporter.step(f"reading which checkpoints of {manifest.id} are here"):
        objects = [one for one in copy.objects or () if not _is_here(directory, one)]
    total = manifest.size + sum(one.size for one in objects)
    _check_space(directory.root, total)
    with workplace.reporter.step(
        f"bringing {manifest.id} from {transfer.destination.url}", total=max(1, total)
    ) as step:
        for one in objects:
            _bring_object(directory, transfer, one, step)
        with directory.partial(manifest.id) as folder:
            for entry in manifest.files:
                step.detail(entry.name)
                transfer.bring(name_in(manifest.id, entry.name), folder / entry.name, entry.size, entry.sha256, step)
            if here is not None:
                directory.remove(manifest.id)
            directory.publish(manifest)
    _keep_key(directory, manifest)
    stored = _mark(workplace, copy, manifest.id, here)
    return Pulled(
        manifest.id, transfer.destination.url, "brought", manifest.created, directory.path(manifest.id),
        len(objects), total, stored.marks.verified("restore") is not None,
    )  # fmt: skip


def _find(copies: Copies, which: str, environment: str, url: str) -> tuple[Copy, Manifest]:
    """Return the copy that is meant, if it can be used."""
    hint = f"mistudio-ops backup list --at '{url}'"
    backups = copies.backups
    if which == LATEST:
        fitting = _latest(_of_environment([one for one in backups if one.good], environment, url))
    else:
        fitting = [one for one in backups if one.id == which] or [one for one in backups if one.id.startswith(which)]
    if not fitting or not which:
        found = f"; {len(backups)} are there, and none of them is good" if backups and which == LATEST else ""
        raise NothingFoundError(f"there is no backup {which!r} at {url}{found}", hint=hint)
    if len(fitting) > 1:
        raise UsageError(f"{which!r} fits {', '.join(one.id for one in fitting[:5])}", hint="write more of the id")
    (stored,) = fitting
    copy = copies.get(stored.id)
    if copy is None or stored.manifest is None or stored.problem is not None:
        raise VerificationError(f"the copy of {stored.id} at {url} cannot be used: {stored.problem}", hint=hint)
    return copy, stored.manifest


def _latest(good: list[StoredBackup]) -> list[StoredBackup]:
    """Return the newest, if there is one. One made before a restore holds the damage: it is the last resort."""
    whole = [one for one in good if one.manifest and one.manifest.kind != "pre-restore"]
    return (whole or good)[-1:]


def _of_environment(good: list[StoredBackup], environment: str, url: str) -> list[StoredBackup]:
    """Return those of one environment: that of our name, or the only one there is."""
    names = {one.manifest.environment for one in good if one.manifest}
    if len(names) <= 1:
        return good
    if environment not in names:
        raise UsageError(
            f"{url} holds backups of {', '.join(sorted(names))}, and none of {environment}",
            hint="name the backup by its id, or the environment with -e",
        )
    return [one for one in good if one.manifest and one.manifest.environment == environment]


def _here(directory: BackupDirectory, manifest: Manifest) -> StoredBackup | None:
    """Return what is here under its id: the same backup, whole or damaged; None when there is nothing."""
    try:
        here = directory.get(manifest.id)
    except NothingFoundError:
        return None
    if here.manifest is not None and here.manifest.render() != manifest.render():
        raise PreconditionError(
            f"{directory.path(manifest.id)} is another backup of the same id, made by {here.manifest.environment}",
            hint="pull it with --set backup.directory=/another/folder",
        )
    return here


def _objects_are_here(directory: BackupDirectory, copy: Copy) -> bool:
    return all(_size(directory.root / one.name) == one.size for one in copy.objects or ())


def _is_here(directory: BackupDirectory, one: CopiedObject) -> bool:
    """Return whether an object is here unharmed. It is read: a restore is no time for surprises."""
    path = directory.root / one.name
    if _size(path) != one.size:
        return False
    try:
        verify_hash(path, one.entry)
    except DamagedFileError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _bring_object(directory: BackupDirectory, transfer: Transfer, one: CopiedObject, step: Step) -> None:
    step.detail(one.name)
    target = directory.root / one.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.parent.parent / f".partial-{target.name}"
    partial.unlink(missing_ok=True)
    transfer.bring(one.name, partial, one.size, one.sha256, step)
    partial.replace(target)
    sync_folder(target.parent)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise PreconditionError(
            f"{folder} has {free / 1e6:.0f} MB free; {(needed + _SPARE) / 1e6:.0f} MB are needed",
            hint="free some, or set backup.directory to a larger disk",
        )


def _warn_of_order(workplace: Workplace, manifest: Manifest) -> None:
    """Backups are ordered by sequence. After a fresh start here, one from elsewhere may be ahead of newer ones."""
    younger = [
        one.id
        for one in workplace.directory.all()
        if one.manifest and one.manifest.created > manifest.created and one.sequence < manifest.sequence
    ]
    if younger:
        workplace.reporter.warning(
            f"{manifest.id} will count as newer than {', '.join(younger[:3])}, which this directory made later with "
            "smaller numbers",
            hint="name the backup that you mean by its id; the next one made here is the newest again",
        )


def _keep_key(directory: BackupDirectory, manifest: Manifest) -> None:
    """Let the passphrase's key that was used elsewhere be used here too: unchanged checkpoints stay shared."""
    if manifest.encryption.passphrase:
        content = (directory.path(manifest.id) / KEY_FILE).read_bytes()
        install_key(directory.root, manifest.encryption.fingerprint, content)


def _mark(workplace: Workplace, copy: Copy, backup_id: str, here: StoredBackup | None) -> StoredBackup:
    arrived = Verification("hash", workplace.now(), ok=True)
    marks = travelling(copy.stored.marks, Marks(), arrived)
    if here is not None and here.marks.pinned and not marks.pinned:
        marks = replace(marks, pinned=True, pin_reason=here.marks.pin_reason)
    workplace.directory.mark(backup_id, marks)
    return workplace.directory.get(backup_id)
