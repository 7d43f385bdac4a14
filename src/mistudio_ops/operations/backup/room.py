"""Whether a backup will fit, asked before anything is written; and what to say when the disk becomes full after all."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mistudio_ops.domain.backup import DatabaseFacts, StoredBackup
from mistudio_ops.errors import OpsError, PreconditionError

#: Returns the bytes free for us on the disk of a path.
FreeBytes = Callable[[Path], int]
#: Databases grow, and so does what they compress to.
GROWTH = 1.2
#: Without an earlier backup: part of the database's size on the server's disk. Metric rows compress to a fifth.
FIRST_RATIO = 0.5
#: Left to others on the same disk.
SPARE_BYTES = 64 << 20
_NOTHING_LEFT = "nothing of it is left and earlier ones are untouched"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OpsError):
    """The disk became full while the backup was written. Nothing of it is left."""

    code = "disk_full"


def disk_free_bytes(path: Path) -> int:
    """Return the bytes that an ordinary user can still write on the disk of ``path``."""
    return shutil.disk_usage(path).free


def expected_size(facts: DatabaseFacts, backups: list[StoredBackup]) -> int:
    """Return the bytes that the database's file will have: as the newest good backup's, grown with the database."""
    for stored in reversed(backups):
        entry = stored.manifest.file("database") if stored.manifest and stored.good else None
        if stored.manifest is not None and entry is not None and stored.manifest.database.name == facts.name:
            grown = max(1.0, facts.size_bytes / max(1, stored.manifest.database.size_bytes))
            return int(entry.size * grown * GROWTH)
    return int(facts.size_bytes * FIRST_RATIO)


def require_room(root: Path, needed: int, *, free_bytes: FreeBytes = disk_free_bytes) -> None:
    """Raise unless ``needed`` bytes, and some to spare, are free where the backups are.

    Raises:
        PreconditionError: they are not.
    """
    free = free_bytes(root)
    if free < needed + SPARE_BYTES:
        raise PreconditionError(
            f"a backup needs about {_mib(needed + SPARE_BYTES)} on the disk of {root}, and {_mib(free)} are free",
            hint="mistudio-ops backup prune; or set backup.directory to a larger disk; or free some space there",
        )


@contextmanager
def disk_errors_named(root: Path) -> Iterator[None]:
    """Turn what the system says of files below ``root`` into errors of ours.

    Raises:
        DiskFullError: no space, quota exceeded, or a file too large.
        OpsError: anything else, as a disk that fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            where = error.filename or root
            raise OpsError(
                f"{where}: {error.strerror or error}; the backup was not made", hint=_NOTHING_LEFT
            ) from error
        raise DiskFullError(
            f"the disk of {root} became full ({error.strerror}); the backup was not made",
            hint=f"{_NOTHING_LEFT}: mistudio-ops backup prune, or free some space",
        ) from error


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
