"""``backup pin``: a backup that nothing removes by itself, until the pin is taken away."""

from mistudio_ops.domain.backup import Marks, StoredBackup
from mistudio_ops.operations.backup.workplace import Workplace


def pin(workplace: Workplace, text: str, *, reason: str | None = None, lock_wait: float = 0) -> StoredBackup:
    """Pin the backup that ``text`` names, also a bad one; return it as it is now. Pinning again replaces the reason.

    Raises:
        NothingFoundError: there is none.
        LockedError: somebody writes there.
    """
    return _mark(workplace, text, pinned=True, reason=reason, lock_wait=lock_wait)


def unpin(workplace: Workplace, text: str, *, lock_wait: float = 0) -> StoredBackup:
    """Take the pin away; return the backup as it is now. Damaged marks, which count as a pin, are written anew.

    Raises:
        NothingFoundError: there is none.
        LockedError: somebody writes there.
    """
    return _mark(workplace, text, pinned=False, reason=None, lock_wait=lock_wait)


def _mark(workplace: Workplace, text: str, *, pinned: bool, reason: str | None, lock_wait: float) -> StoredBackup:
    directory = workplace.directory
    found = directory.find(text)
    with directory.lock(lock_wait):
        before = directory.get(found.id).marks
        directory.mark(found.id, Marks(pinned, reason, before.verifications))
        return directory.get(found.id)
