"""Checkpoints from a backup: laid ready beside the trainings' folders, then renamed into their places.

Laying ready takes time and happens while the lab runs; the renaming happens when nothing writes. A checkpoint that is
there as the backup has it stays untouched; one that differs is set aside under another name, never overwritten.
"""

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.archive_file import read_archive
from mistudio_ops.drivers.backup_directory import sync_folder
from mistudio_ops.drivers.checkpoint_objects import StoredObject, object_path, objects_of
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.checkpoints import CheckpointFile, read_index
from mistudio_ops.operations.backup.workplace import Workplace

STAGE_PREFIX = ".restore-"
REPLACED_PREFIX = "replaced-"
_PARTIAL_PREFIX = ".partial-"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class PutBack:
    """The checkpoints of one backup and where they belong. ``token`` names this restore.

    ``training`` limits it to one training's; with ``only_missing`` those stay away for which something is there.
    """

    workplace: Workplace
    stored: StoredBackup
    identities: tuple[Any, ...]
    token: str
    training: str | None = None
    only_missing: bool = False

    @property
    def root(self) -> Path:
        """DATA_DIR/checkpoints."""
        return self.workplace.environment.data / "checkpoints"

    @property
    def stage_root(self) -> Path:
        """Where this restore lays files ready: on the file system that they belong to."""
        return self.root / f"{STAGE_PREFIX}{self.token}"

    def missing_bytes(self) -> int:
        """Return the bytes of the files that are not there, or have another size: about what staging takes."""
        files = read_index(self.workplace, self.stored, self.identities)
        return sum(file.size for file in files if _size(self.root / file.path) != file.size)

    def stage(self) -> tuple[int, int]:
        """Lay ready every checkpoint that is missing or differs; return how many, and how many are there already."""
        folders = self._folders()
        staged = sum(self._stage(name, files) for name, files in folders.items() if not self._sound(name, files))
        return staged, len(folders) - staged

    def place(self) -> int:
        """Rename what was laid ready into its place; return the number of checkpoints. May be done again.

        What the trainer's retention removed since is fetched now.
        """
        placed = 0
        for name, files in self._folders().items():
            if not (self.stage_root / name).is_dir() and not (self.root / name).is_dir():
                self._stage(name, files)
            placed += self._place(name)
        self.discard()
        return placed

    def discard(self) -> None:
        """Remove what was laid ready."""
        shutil.rmtree(self.stage_root, ignore_errors=True)

    def _folders(self) -> dict[str, list[CheckpointFile]]:
        folders: dict[str, list[CheckpointFile]] = defaultdict(list)
        for file in read_index(self.workplace, self.stored, self.identities):
            parts = Path(file.path).parts
            if self.training in {None, parts[0]}:
                folders["/".join(parts[:2])].append(file)
        return {
            name: files for name, files in folders.items() if not (self.only_missing and (self.root / name).exists())
        }

    def _sound(self, name: str, files: Sequence[CheckpointFile]) -> bool:
        """Return True when the folder has exactly these files with this content."""
        folder = self.root / name
        present = {str(path.relative_to(self.root)) for path in folder.rglob("*") if path.is_file()}
        return present == {file.path for file in files} and all(_same(self.root / file.path, file) for file in files)

    def _stage(self, name: str, files: Sequence[CheckpointFile]) -> bool:
        target = self.stage_root / name
        if target.is_dir():
            return True
        partial = target.with_name(f"{_PARTIAL_PREFIX}{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        if not self.root.is_dir():
            self.root.mkdir(parents=True)
            self._own(self.root)
        partial.mkdir(parents=True)
        objects = {one.plain_sha256: one for one in objects_of(self.workplace.directory, self.stored)}
        for file in files:
            self._fetch(file, objects, partial / Path(*Path(file.path).parts[2:]))
        for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            sync_folder(folder)
        self._own(partial)
        partial.rename(target)
        return True

    def _fetch(self, file: CheckpointFile, objects: dict[str, StoredObject], target: Path) -> None:
        one = objects.get(file.sha256)
        if one is None:
            raise VerificationError(f"backup {self.stored.id} does not hold the checkpoint file {file.path}")
        path = object_path(self.workplace.directory, self.stored, file.sha256)
        suffix = path.name.removeprefix(one.plain_sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb", buffering=0) as sink:
            read_archive(path, one.entry(suffix), self.identities, sink)
            os.fsync(sink.fileno())
        os.utime(target, ns=(file.mtime_ns, file.mtime_ns))

    def _own(self, folder: Path) -> None:
        """Give it to whoever DATA_DIR belongs to: the account of the workers."""
        owner = self.workplace.environment.data.stat()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)

    def _place(self, name: str) -> bool:
        staged, target = self.stage_root / name, self.root / name
        if not staged.is_dir():
            return False
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
            self._own(target.parent)
        if target.exists():
            target.rename(target.with_name(f"{REPLACED_PREFIX}{self.token}-{target.name}"))
        staged.rename(target)
        sync_folder(target.parent)
        return True


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _same(path: Path, file: CheckpointFile) -> bool:
    if _size(path) != file.size:
        return False
    try:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return False
    return digest == file.sha256
