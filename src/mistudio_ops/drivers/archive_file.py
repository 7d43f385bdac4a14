"""Files of a backup: compressed, encrypted and hashed while they stream by. No plaintext touches the disk.

Measured (2 cores, 644 MB of metric rows as text): zstd -1 with two threads, sha256 of both ends and age together take
2.3 s and 37 MB; reading back takes 1.0 s. The same dump by pg_dump's own compression (-Fc) takes six times as long.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from mistudio_ops.domain.backup import Encryption, FileEntry, Role
from mistudio_ops.drivers.encryption import Keys, WrongKeyError
from mistudio_ops.errors import VerificationError

LEVEL = 1
THREADS = 2
_CHUNK = 1 << 20

OnBytes = Callable[[int], None]


class DamagedFileError(VerificationError):
    """A file of a backup is not what was written; the message says which and how."""

    code = "damaged_backup"


class _RefusedError(Exception):
    """pyrage refuses the data, or the key."""


class Source(Protocol):
    """What is read from: a pipe or a file, unbuffered or not."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill the buffer and return how much; 0 at the end."""


class Sink(Protocol):
    """What is written to."""

    def write(self, data: Any, /) -> Any:
        """Take all of ``data``."""


def file_suffix(encryption: Encryption) -> str:
    """Return what the names of compressed files end with."""
    return ".zst" if encryption.scheme == "none" else ".zst.age"


def write_archive(source: Source, path: Path, role: Role, keys: Keys, *, on_bytes: OnBytes | None = None) -> FileEntry:
    """Read ``source`` to its end into a new file ``path``, synced; return its entry.

    Raises:
        OSError: the disk is full, or the file exists.
    """
    import pyrage
    import zstandard

    plain = _HashingSource(source, on_bytes)
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=THREADS, write_checksum=True)
    with _new_file(path) as file:
        stored = _HashingSink(file)
        compressed = compressor.stream_reader(plain, read_size=_CHUNK)  # type: ignore[arg-type]
        if keys.encryption.scheme == "none":
            while chunk := compressed.read(_CHUNK):
                stored.write(chunk)
        else:
            _sincerely(stored, lambda: pyrage.encrypt_io(compressed, stored, list(keys.recipients)), plain)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(path.name, role, stored.size, stored.hexdigest(), plain.size, plain.hexdigest())


def write_plain(content: bytes, path: Path, role: Role) -> FileEntry:
    """Write a small file as it is, synced."""
    with _new_file(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256(content).hexdigest()
    return FileEntry(path.name, role, len(content), digest, len(content), digest)


def read_archive(
    path: Path, entry: FileEntry, identities: tuple[Any, ...], sink: Sink, *, on_bytes: OnBytes | None = None
) -> None:
    """Send the content of a file to ``sink``, and compare it with its entry on the way.

    What came before an error was sent already: the receiver must not use it. ``on_bytes`` counts plain bytes.

    Raises:
        DamagedFileError: it is not what was written.
        WrongKeyError: none of ``identities`` opens it.
        OSError: what ``sink`` raises.
    """
    import pyrage
    import zstandard

    plain = _HashingSink(sink, on_bytes)
    with _opened(path) as file:
        stored = _HashingSource(file)
        decompressed = zstandard.ZstdDecompressor().stream_writer(plain, write_size=_CHUNK)  # type: ignore[arg-type]
        try:
            if path.suffix == ".age":
                reader = io.BufferedReader(stored, _CHUNK)
                _sincerely(plain, lambda: pyrage.decrypt_io(reader, decompressed, list(identities)), stored)
            else:
                while chunk := stored.read(_CHUNK):
                    decompressed.write(chunk)
        except (zstandard.ZstdError, _RefusedError) as error:
            _raise_damaged(path, entry, error)
    _compare(path, entry, stored, plain)


def verify_hash(path: Path, entry: FileEntry, *, on_bytes: OnBytes | None = None) -> None:
    """Read a file as it lies there and compare size and sha256.

    Raises:
        DamagedFileError: they differ, or the file is gone.
    """
    with _opened(path) as file:
        stored = _HashingSource(file, on_bytes)
        while stored.read(_CHUNK):
            pass
    _compare(path, entry, stored, None)


def _compare(path: Path, entry: FileEntry, stored: "_HashingSource", plain: "_HashingSink | None") -> None:
    if stored.size != entry.size:
        raise DamagedFileError(f"{path} has {stored.size} bytes; {entry.size} were written")
    if stored.hexdigest() != entry.sha256:
        raise DamagedFileError(f"{path} is not what was written: its sha256 is another")
    if plain is not None and (plain.size, plain.hexdigest()) != (entry.plain_size, entry.plain_sha256):
        raise DamagedFileError(f"the content of {path} is not what was written: its sha256 is another")


def _raise_damaged(path: Path, entry: FileEntry, error: Exception) -> None:
    """A wrong key and a damaged file look alike to age: the stored hash tells them apart."""
    verify_hash(path, entry)
    if path.suffix == ".age":
        raise WrongKeyError(
            f"{path} is whole, and the key at hand does not open it: {error}",
            hint="set backup.identity_file or the passphrase to what the backup was made with",
        ) from error
    raise DamagedFileError(f"{path} cannot be decompressed: {error}") from error


def _sincerely(sink: "_HashingSink", run: Callable[[], None], source: "_HashingSource") -> None:
    """Run a call of pyrage's, and raise what our own file objects raised instead of its summary of it."""
    try:
        run()
    except Exception as error:
        ours = sink.error or source.error
        raise (ours or _RefusedError(str(error))) from error


@contextmanager
def _new_file(path: Path) -> Iterator[io.FileIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with io.FileIO(descriptor, "wb") as file:
        yield file


@contextmanager
def _opened(path: Path) -> Iterator[io.FileIO]:
    try:
        file = io.FileIO(path, "rb")
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield file


class _HashingSource(io.RawIOBase):
    """Passes reads on, counting and hashing what comes by."""

    def __init__(self, source: Source, on_bytes: OnBytes | None = None) -> None:
        self._source, self._on_bytes, self._hash = source, on_bytes, hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            count = self._source.readinto(buffer) or 0
            self._hash.update(memoryview(buffer)[:count])
            self.size += count
            if self._on_bytes is not None:
                self._on_bytes(count)
        except BaseException as error:  # a signal's too, which may arrive at any line
            self.error = error
            raise
        return count

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _HashingSink(io.RawIOBase):
    """Passes writes on, all of each, counting and hashing them."""

    def __init__(self, sink: Sink, on_bytes: OnBytes | None = None) -> None:
        self._sink, self._on_bytes, self._hash = sink, on_bytes, hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        try:
            sent = 0
            while sent < len(view):
                sent += self._sink.write(view[sent:]) or 0
            self._hash.update(view)
            self.size += len(view)
            if self._on_bytes is not None:
                self._on_bytes(len(view))
        except BaseException as error:
            self.error = error
            raise
        return len(view)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
