"""Moving single files between the backup directory and a destination: hashed on the way, proven, tried again."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mistudio_ops.drivers.destinations import CHUNK, AbsentError, Destination, UnreachableError
from mistudio_ops.errors import PreconditionError, VerificationError
from mistudio_ops.presentation.reporter import Step

if TYPE_CHECKING:
    from stamina import Attempt


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried when a destination does not answer, and how long is waited in between (s)."""

    attempts: int = 6
    wait: float = 1.0
    longest: float = 30.0


PATIENT = Patience()


class Damaged(VerificationError):  # noqa: N818 - names what was found
    """A file is not what was written; the message says where."""

    code = "damaged_backup"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moves files to and from one destination."""

    destination: Destination
    patience: Patience = PATIENT

    def names(self, below: str = "") -> dict[str, int]:
        """Return names and sizes of what is there."""
        for attempt in self._attempts():
            with attempt:
                return dict(self.destination.list(below))
        raise AssertionError("stamina raises the last error")  # pragma: no cover

    def text(self, name: str) -> bytes | None:
        """Return the content of a small file, None where there is none."""
        for attempt in self._attempts():
            with attempt:
                try:
                    with self.destination.read(name) as chunks:
                        return b"".join(chunks)
                except AbsentError:
                    return None
        raise AssertionError("stamina raises the last error")  # pragma: no cover

    def put(self, name: str, content: bytes) -> None:
        """Write a small file, and read it back.

        Raises:
            Damaged: what is there then is something else.
        """
        for attempt in self._attempts():
            with attempt:
                self.destination.write(name, iter((content,)), len(content))
        if self.text(name) != content:
            raise Damaged(f"{name} at {self.destination.url} is not what was written")

    def remove(self, name: str) -> None:
        """Remove a file."""
        for attempt in self._attempts():
            with attempt:
                self.destination.remove(name)

    def send(self, path: Path, name: str, size: int, sha256: str, step: Step) -> None:
        """Send a file and read it back there.

        Raises:
            Damaged: the file here is not what was written, or the one there is not what was sent: it is removed.
        """
        for attempt in self._attempts():
            with attempt, _counted(step) as counted:
                self.destination.write(name, _Hashed(_local(path), str(path), size, sha256, counted), size)
        try:
            self.prove(name, size, sha256, step)
        except Damaged:
            self.remove(name)
            raise

    def prove(self, name: str, size: int, sha256: str, step: Step) -> None:
        """Read a file there and compare it.

        Raises:
            Damaged: it is not what was written.
        """
        for attempt in self._attempts():
            with attempt, _counted(step) as counted:
                self._prove(name, size, sha256, counted)

    def bring(self, name: str, path: Path, size: int, sha256: str, step: Step) -> None:
        """Bring a file here, synced, as a new file ``path``; nothing stays of one that is not what was written.

        Raises:
            Damaged: it is not.
            PreconditionError: it cannot be written here.
        """
        for attempt in self._attempts():
            with attempt, _counted(step) as counted, self._found(name), self.destination.read(name) as chunks:
                _write(path, _Hashed(chunks, f"{name} at {self.destination.url}", size, sha256, counted))

    def _prove(self, name: str, size: int, sha256: str, counted: "_Counted") -> None:
        with self._found(name), self.destination.read(name) as chunks:
            for _ in _Hashed(chunks, f"{name} at {self.destination.url}", size, sha256, counted):
                pass

    @contextmanager
    def _found(self, name: str) -> Iterator[None]:
        try:
            yield
        except AbsentError as error:
            raise Damaged(f"{name} is gone from {self.destination.url}") from error

    def _attempts(self) -> Iterator["Attempt"]:
        import stamina

        stamina.instrumentation.set_on_retry_hooks([])  # they would log every attempt on stdout
        patience = self.patience
        context = stamina.retry_context(
            on=UnreachableError, attempts=patience.attempts, timeout=None,
            wait_initial=patience.wait, wait_max=patience.longest, wait_jitter=patience.wait,
        )  # fmt: skip
        return iter(context)


class _Counted:
    """Bytes that one attempt moved."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.bytes = 0

    def add(self, count: int) -> None:
        self.bytes += count
        self._step.advance(count)


@contextmanager
def _counted(step: Step) -> Iterator[_Counted]:
    """Count the bytes of an attempt, and take them back when it fails."""
    counted = _Counted(step)
    try:
        yield counted
    except BaseException:
        step.advance(-counted.bytes)
        raise


class _Hashed(Iterator[bytes]):
    """Passes chunks on; at the end it raises if they were not what was expected."""

    def __init__(self, chunks: Iterator[bytes], what: str, size: int, sha256: str, counted: _Counted) -> None:
        self._chunks, self._what, self._size, self._sha256, self._counted = chunks, what, size, sha256, counted
        self._hash = hashlib.sha256()

    def __next__(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not chunk:
            self._compare()
            raise StopIteration
        self._hash.update(chunk)
        self._counted.add(len(chunk))
        return chunk

    def _compare(self) -> None:
        if self._counted.bytes != self._size:
            raise Damaged(f"{self._what} has {self._counted.bytes} bytes; {self._size} were written")
        if self._hash.hexdigest() != self._sha256:
            raise Damaged(f"{self._what} is not what was written: its sha256 is another")


def _local(path: Path) -> Iterator[bytes]:
    """Read a file here. Its errors are not the destination's, so they do not look like those."""
    try:
        with io.FileIO(path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with io.FileIO(descriptor, "wb") as file:
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise PreconditionError(
            f"{path} cannot be written: {error.strerror}",
            hint=f"df -h {path.parent}; free space, or set backup.directory to a larger disk" if full else None,
        ) from error
