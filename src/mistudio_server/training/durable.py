"""Writing so that a kill, a power cut or a full disk leaves either the old thing or the new, never half of one."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mistudio_server.errors import InsufficientStorageError

#: Folders and files whose name begins so are unfinished or are being removed: they may be deleted at any time.
TEMPORARY_PREFIX = ".tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SPARE_BYTES = 16 << 20  # left to others on the same disk

#: Returns the bytes free for us on the disk of a path.
FreeBytes = Callable[[Path], int]


def disk_free_bytes(path: Path) -> int:
    """Return the bytes that an ordinary user can still write on the disk of ``path`` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require_free(path: Path, needed: int, what: str, *, free_bytes: FreeBytes = disk_free_bytes) -> None:
    """Raise ``InsufficientStorageError`` unless ``needed`` bytes, and 16 MiB to spare, are free where ``path`` is."""
    free = free_bytes(path)
    if free < needed + _SPARE_BYTES:
        raise InsufficientStorageError(
            f"{what} needs {_mib(needed + _SPARE_BYTES)} on the disk of {path}, and {_mib(free)} are free",
            hint="Free some space there (old checkpoints and datasets), then resume.",
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


@contextmanager
def full_disk_named(path: Path, what: str) -> Iterator[None]:
    """Turn "no space", "quota exceeded" and "file too large" into ``InsufficientStorageError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InsufficientStorageError(
            f"The disk of {path} became full while writing {what} ({error.strerror})",
            hint="Free some space there (old checkpoints and datasets), then resume.",
        ) from error


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; its bytes are on the disk when the block ends without an exception."""
    with path.open("wb") as file:
        yield file
        sync_and_close(file)


def sync_and_close(file: BinaryIO) -> None:
    """Put what was written to ``file`` on the disk, then close it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def sync_directory(path: Path) -> None:
    """Make names created, renamed or removed in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """Give a complete folder its final name; an older one of that name is replaced."""
    sync_directory(temporary)
    if final.exists():
        remove_folder(final)
    temporary.rename(final)
    sync_directory(final.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never seen half removed under its name."""
    doomed = path.with_name(f"{TEMPORARY_PREFIX}removed-{path.name}-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(parent: Path, name: str = "") -> None:
    """Remove what killed writers left in ``parent``: temporary names that contain ``name``."""
    if not parent.is_dir():
        return
    for path in parent.glob(f"{TEMPORARY_PREFIX}*"):
        if name not in path.name:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
