"""A file without a name: what is in it can be read by those it is handed to, and is gone with the last of them."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Left free beside it, so that a server on the same disk does not stop.
SPARE_BYTES = 256 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoomError(Exception):
    """No folder has room for it, or can hold files without a name."""


@dataclass(frozen=True, slots=True)
class AnonymousFile:
    """An open one, below ``folder``."""

    descriptor: int
    folder: Path

    def fill(self, write: Callable[[Any], None]) -> None:
        """Let ``write`` write its content.

        Raises:
            NoRoomError: the disk is full.
        """
        try:
            with os.fdopen(os.dup(self.descriptor), "wb", buffering=0) as file:
                write(file)
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoomError(f"{self.folder} is full: {error.strerror}") from error
            raise


@contextmanager
def anonymous_file(
    folders: Sequence[Path], size: int, *, free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> Iterator[AnonymousFile]:
    """Open one in the first folder with room for ``size`` bytes; closed, and so gone, with the block.

    Raises:
        NoRoomError: there is none.
    """
    reasons = []
    for folder in folders:
        try:
            if free(folder) < size + SPARE_BYTES:
                reasons.append(f"{folder} has {free(folder) >> 20} MiB left of the {(size + SPARE_BYTES) >> 20} needed")
                continue
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        try:
            yield AnonymousFile(descriptor, folder)
        finally:
            os.close(descriptor)
        return
    raise NoRoomError("; ".join(reasons) or "no folder to put the unpacked backup into")
