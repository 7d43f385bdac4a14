"""Copies in another folder of this machine: a second disk, a mounted share."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from mistudio_ops.drivers.backup_directory import sync_folder
from mistudio_ops.drivers.destinations import CHUNK, PARTIAL, AbsentError, DestinationError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Folder:
    """A folder. Its own last part is made; the folder above must be there, as a disk that is not mounted is not."""

    elsewhere = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def list(self, below: str = "") -> dict[str, int]:
        """Return the files below a folder."""
        found: dict[str, int] = {}
        with self._explained("read"):
            for folder, _, names in os.walk(self.root / below, onerror=_unless_absent):
                for name in names:
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    @contextmanager
    def read(self, name: str) -> Iterator[Iterator[bytes]]:
        """Open a file."""
        try:
            file = (self.root / name).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError):
            raise AbsentError(f"there is no {name} in {self.root}") from None
        except OSError as error:
            raise self._error("read", error) from error
        with file:
            # What was just written is read from the disk, not from memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            yield self._chunks(file)

    def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
        """Write a file, synced."""
        del size
        path = self.root / name
        partial = path.with_name(f"{PARTIAL}{path.name}")
        with self._explained("written"):
            self._make_folder(path.parent)
            try:
                _write_synced(partial, chunks)
                partial.replace(path)
            except BaseException:
                with suppress(OSError):
                    partial.unlink()
                raise
            sync_folder(path.parent)

    def remove(self, name: str) -> None:
        """Remove a file, and its folder where that is empty now."""
        path = self.root / name
        with self._explained("changed"):
            path.unlink(missing_ok=True)
            if path.parent != self.root:
                with suppress(OSError):
                    path.parent.rmdir()

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _chunks(self, file: io.FileIO) -> Iterator[bytes]:
        while True:
            with self._explained("read"):
                chunk = file.read(CHUNK)
            if not chunk:
                return
            yield chunk

    def _make_folder(self, folder: Path) -> None:
        if not self.root.is_dir():
            self.root.mkdir(mode=0o700)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(what, error) from error

    def _error(self, what: str, error: OSError) -> DestinationError:
        if error.errno in _FULL:
            return DestinationError(
                f"{self.root} is full: {error.strerror}",
                hint=f"df -h {self.root}, then mistudio-ops backup prune --at {self.root}, or a larger disk",
            )
        if error.errno == errno.ENOENT:
            return DestinationError(
                f"{self.root.parent} does not exist", hint=f"is the disk mounted? Else: mkdir -p {self.root}"
            )
        return DestinationError(
            f"{self.root} cannot be {what}: {error.strerror or error}", hint=f"ls -ld {self.root}; id; mount"
        )


def _unless_absent(error: OSError) -> None:
    if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
        raise error


def _write_synced(path: Path, chunks: Iterator[bytes]) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
