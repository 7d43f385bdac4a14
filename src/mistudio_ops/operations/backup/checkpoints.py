"""Checkpoints in a backup: the files of whole ones, each content stored once for all backups.

They are copied before the database's snapshot is taken. So a restored database is never behind its checkpoints: a
training that resumes finds itself where a killed worker would, and the steps since the checkpoint are made again.
"""

import io
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import CheckpointFacts, FileEntry, StoredBackup
from mistudio_ops.drivers.archive_file import file_suffix, write_archive, write_plain
from mistudio_ops.drivers.checkpoint_objects import OBJECTS_FILE, ObjectStore, Stat, StoredObject, render_objects
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.reporter import Step

INDEX_FILE = "checkpoints.json"
#: Others are unfinished, being removed, or set aside as corrupt.
_WHOLE = re.compile(r"step-\d+")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file: ``path`` is relative to DATA_DIR/checkpoints; ``sha256`` is of its content and names its object."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CopiedCheckpoints:
    """What is to be written into the backup's folder: the index, the objects that it refers to, and the facts."""

    files: tuple[CheckpointFile, ...]
    objects: tuple[StoredObject, ...]
    facts: CheckpointFacts


class _GoneError(Exception):
    """A file vanished or changed while it was copied."""


def checkpoint_folder(workplace: Workplace) -> Path:
    """Return DATA_DIR/checkpoints."""
    return workplace.environment.data / "checkpoints"


def unread_bytes(workplace: Workplace, keys: Keys) -> int:
    """Return the size of the checkpoint files that a backup would have to read: an upper bound of what it adds."""
    seen = ObjectStore(workplace.directory, keys).seen()
    root = checkpoint_folder(workplace)
    total = 0
    for folder in _whole_checkpoints(root):
        for path in _files(folder):
            found = _stat(path)
            before = seen.get(str(path.relative_to(root)))
            total += found.size if found is not None and (before is None or before[0] != found) else 0
    return total


def copy_checkpoints(workplace: Workplace, keys: Keys) -> CopiedCheckpoints:
    """Store the content of every whole checkpoint that is not stored yet. Hold the directory's lock.

    A file that has the size, times and inode with which it was read before is not read again. A checkpoint that
    vanishes meanwhile, by the trainer's retention, is left out whole and named.

    Raises:
        OSError: the backup directory is full, or a file cannot be read.
    """
    root = checkpoint_folder(workplace)
    store = ObjectStore(workplace.directory, keys)
    store.open(workplace.directory.all())
    with workplace.reporter.step("copying checkpoints", total=max(1, unread_bytes(workplace, keys))) as step:
        copy = _Copy(root, store, step)
        for folder in _whole_checkpoints(root):
            copy.folder(folder)
        store.remember(copy.seen)
        store.sync()
        step.detail(f"{len(copy.files)} files, {copy.added_files} of them new")
    return copy.result()


def write_index(copied: CopiedCheckpoints, folder: Path, keys: Keys) -> tuple[FileEntry, FileEntry]:
    """Write a backup's index and the list of its objects."""
    document = json.dumps({"format": 1, "files": [asdict(one) for one in copied.files]}, indent=0)
    path = folder / f"{INDEX_FILE}{file_suffix(keys.encryption)}"
    index = write_archive(io.BytesIO(document.encode()), path, "checkpoints", keys)
    return index, write_plain(render_objects(copied.objects), folder / OBJECTS_FILE, "objects")


def read_index(workplace: Workplace, stored: StoredBackup, identities: tuple[Any, ...]) -> tuple[CheckpointFile, ...]:
    """Return the files that a backup's index lists; none where it holds no checkpoints.

    Raises:
        VerificationError: the index is damaged, or names a path outside its folder.
        WrongKeyError: none of ``identities`` opens it.
    """
    if stored.manifest is not None and stored.manifest.file("checkpoints") is None:
        return ()
    content = io.BytesIO()
    workplace.read(stored, "checkpoints", identities, content)
    try:
        files = tuple(CheckpointFile(**one) for one in json.loads(content.getvalue())["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"the index of checkpoints of backup {stored.id} cannot be read: {error}") from error
    for one in files:
        if Path(one.path).is_absolute() or ".." in Path(one.path).parts:
            raise VerificationError(f"the index of checkpoints of backup {stored.id} names {one.path!r}")
    return files


class _Copy:
    """One run over the checkpoints, and what it found."""

    def __init__(self, root: Path, store: ObjectStore, step: Step) -> None:
        self._root, self._store, self._step = root, store, step
        self._before = store.seen()
        self.seen: dict[str, tuple[Stat, str]] = {}
        self.files: list[CheckpointFile] = []
        self.objects: dict[str, StoredObject] = {}
        self.vanished: list[str] = []
        self.added_files = self.added_bytes = 0

    def folder(self, folder: Path) -> None:
        """Take in one checkpoint, all of its files or none."""
        try:
            taken = [self._file(path) for path in _files(folder)]
            _still_there(folder)
        except (_GoneError, FileNotFoundError):
            self.vanished.append(str(folder.relative_to(self._root)))
            return
        for file, one in taken:
            self.files.append(file)
            self.objects[one.plain_sha256] = one

    def result(self) -> CopiedCheckpoints:
        """Return what was found."""
        size = sum(file.size for file in self.files)
        facts = CheckpointFacts(len(self.files), size, self.added_files, self.added_bytes, tuple(self.vanished))
        return CopiedCheckpoints(tuple(self.files), tuple(self.objects.values()), facts)

    def _file(self, path: Path) -> tuple[CheckpointFile, StoredObject]:
        name = str(path.relative_to(self._root))
        with _opened(path) as source:
            found = Stat.of(os.fstat(source.fileno()))
            one = self._unread(name, found) or self._read(source, path, found)
        self.seen[name] = (found, one.plain_sha256)
        return CheckpointFile(name, found.size, found.mtime_ns, one.plain_sha256), one

    def _unread(self, name: str, found: Stat) -> StoredObject | None:
        before = self._before.get(name)
        return self._store.find(before[1]) if before is not None and before[0] == found else None

    def _read(self, source: io.FileIO, path: Path, found: Stat) -> StoredObject:
        one, new = self._store.add(source, on_bytes=self._step.advance)
        if new:
            self.added_files += 1
            self.added_bytes += one.size
        if one.plain_size != found.size or Stat.of(os.fstat(source.fileno())).mtime_ns != found.mtime_ns:
            raise _GoneError(path)
        return one


def _whole_checkpoints(root: Path) -> Iterator[Path]:
    """Yield DATA_DIR/checkpoints/<training>/step-*, in order, nothing that a link leads to."""
    if not root.is_dir():
        return
    for training in sorted(path for path in root.iterdir() if _is_folder(path)):
        try:
            steps = sorted(path for path in training.iterdir() if _WHOLE.fullmatch(path.name) and _is_folder(path))
        except FileNotFoundError:  # the training was deleted this moment
            continue
        yield from steps


def _files(folder: Path) -> list[Path]:
    """Return the files below a checkpoint's folder; none when it vanished."""
    return sorted(path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _still_there(folder: Path) -> None:
    if not folder.is_dir():
        raise _GoneError(folder)


def _stat(path: Path) -> Stat | None:
    try:
        return Stat.of(path.stat())
    except FileNotFoundError:
        return None


def _opened(path: Path) -> io.FileIO:
    """Open a regular file; a link or a pipe that took its place is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _GoneError(path)
    return io.FileIO(descriptor, "rb")
