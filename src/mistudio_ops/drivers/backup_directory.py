"""A directory of backups: one folder for each, whole or not visible.

    ID/manifest.json            written last; a folder without one is no backup
    ID/database.dump.zst[.age]  and the other files that the manifest lists
    ID/marks.json               pins and verifications; not part of the backup
    .partial-ID/                one being made, or left by a kill
    .removing-ID/               one being removed, or left by a kill
    objects/FINGERPRINT/ab/...  checkpoint files by the sha256 of their content, shared by backups
    keys/                       keys encrypted with a passphrase
    lock                        flock of whoever writes here; never unlinked

Only ``write`` of a manifest, ``rename`` and ``fsync`` make a backup appear or vanish: there is no moment at which half
of one has the name of a whole one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mistudio_ops.domain.backup import (
    ID_PATTERN,
    MANIFEST_FILE,
    MARKS_FILE,
    FileEntry,
    Manifest,
    ManifestError,
    Marks,
    StoredBackup,
    Verification,
)
from mistudio_ops.drivers.lock import command_line, exclusive
from mistudio_ops.errors import NothingFoundError, PreconditionError, UsageError

_PARTIAL = ".partial-"
_REMOVING = ".removing-"
#: Words that stand for a backup on the command line.
LATEST, LATEST_VERIFIED = "latest", "latest-verified"


class BackupDirectory:
    """The backups below ``root``. Reading needs no lock; everything that writes holds ``lock()``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the directory, readable by nobody else.

        Raises:
            PreconditionError: it cannot be made or written.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise PreconditionError(
                f"the backup directory {self.root} cannot be written: {error.strerror}",
                hint="set backup.directory in mistudio.toml, or MISTUDIO_BACKUP_DIRECTORY, to one that can",
            ) from error

    def lock(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Hold the directory for writing, waiting up to ``wait`` seconds for who holds it.

        Raises:
            LockedError: somebody else still does.
        """
        return exclusive(self.root / "lock", command_line(), wait=wait, what="on these backups")

    def all(self) -> list[StoredBackup]:
        """Return every backup, oldest first; those that cannot be used say why.

        One that is removed by somebody else meanwhile is left out.
        """
        names = sorted(path.name for path in self.root.glob("*") if ID_PATTERN.fullmatch(path.name))
        found = (self._unless_gone(name) for name in names)
        return sorted((one for one in found if one is not None), key=lambda one: (one.sequence, one.id))

    def get(self, backup_id: str) -> StoredBackup:
        """Return one backup, with what is wrong with its manifest or the sizes of its files.

        Raises:
            NothingFoundError: there is none of that id.
        """
        folder = self.path(backup_id)
        if not folder.is_dir():
            raise NothingFoundError(f"there is no backup {backup_id} in {self.root}", hint="mistudio-ops backup list")
        try:
            marks = Marks.parse((folder / MARKS_FILE).read_bytes())
        except FileNotFoundError:
            marks = Marks()
        except OSError:
            marks = Marks(damaged=True)
        try:
            manifest = Manifest.parse((folder / MANIFEST_FILE).read_bytes())
        except OSError as error:
            problem = f"its manifest cannot be read: {error.strerror}"
            return StoredBackup(backup_id, None, marks, problem, unreadable=_refused(error))
        except ManifestError as error:
            return StoredBackup(backup_id, None, marks, f"its manifest is damaged: {error.message}")
        try:
            return StoredBackup(backup_id, manifest, marks, _problem(folder, manifest))
        except OSError as error:
            problem = f"{error.filename} cannot be read: {error.strerror}"
            return StoredBackup(backup_id, manifest, marks, problem, unreadable=True)

    def _unless_gone(self, backup_id: str) -> StoredBackup | None:
        try:
            stored = self.get(backup_id)
        except NothingFoundError:
            return None
        return stored if stored.good or self.path(backup_id).is_dir() else None

    def find(self, text: str) -> StoredBackup:
        """Return the backup that ``text`` names: an id, the start of one, ``latest`` or ``latest-verified``.

        The two words mean the newest good one, and the newest good one that was proven by a restore.

        Raises:
            NothingFoundError: none fits.
            UsageError: several fit.
        """
        backups = self.all()
        if text in {LATEST, LATEST_VERIFIED}:
            fitting = [one for one in backups if one.good and (text == LATEST or one.marks.verified("restore"))][-1:]
        else:
            fitting = [one for one in backups if one.id == text] or [one for one in backups if one.id.startswith(text)]
        if not fitting or not text:
            raise NothingFoundError(f"no backup {text!r} in {self.root}", hint="mistudio-ops backup list")
        if len(fitting) > 1:
            raise UsageError(f"{text!r} fits {', '.join(one.id for one in fitting[:5])}", hint="write more of the id")
        return fitting[0]

    def next_sequence(self) -> int:
        """Return the number of the next backup: larger than any, whatever the clock says."""
        return max((one.sequence for one in self.all()), default=0) + 1

    def path(self, backup_id: str) -> Path:
        """Return the folder of a backup."""
        return self.root / backup_id

    def objects(self, fingerprint: str) -> Path:
        """Return the folder of the checkpoint files written with one set of keys."""
        return self.root / "objects" / fingerprint

    @contextmanager
    def partial(self, backup_id: str) -> Iterator[Path]:
        """Give a folder to write a backup into; what is not published when the block ends is removed."""
        folder = self.root / f"{_PARTIAL}{backup_id}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, manifest: Manifest) -> Path:
        """Write the manifest into the partial folder, sync all, and give it its name. Return the backup's folder."""
        folder = self.root / f"{_PARTIAL}{manifest.id}"
        _write_synced(folder / MANIFEST_FILE, manifest.render())
        sync_folder(folder)
        target = self.path(manifest.id)
        folder.rename(target)
        sync_folder(self.root)
        return target

    def mark(self, backup_id: str, marks: Marks) -> None:
        """Replace the marks of a backup."""
        folder = self.path(backup_id)
        partial = folder / f".{MARKS_FILE}.{os.getpid()}.partial"
        partial.unlink(missing_ok=True)
        _write_synced(partial, marks.render())
        partial.replace(folder / MARKS_FILE)
        sync_folder(folder)

    def record(self, backup_id: str, done: Verification) -> StoredBackup:
        """Add the outcome of a verification to the marks. Damaged marks stay as they are: they may have been a pin."""
        stored = self.get(backup_id)
        if not stored.marks.damaged:
            self.mark(backup_id, stored.marks.with_verification(done))
        return self.get(backup_id)

    def remove(self, backup_id: str) -> None:
        """Remove a backup: first its name, then its files. Objects stay until they are swept."""
        doomed = self.root / f"{_REMOVING}{backup_id}"
        self.path(backup_id).rename(doomed)
        sync_folder(self.root)
        shutil.rmtree(doomed)

    def clean(self) -> list[str]:
        """Remove what killed commands left half-made or half-removed; return its names. Hold the lock."""
        left = sorted(path for kind in (_PARTIAL, _REMOVING) for path in self.root.glob(f"{kind}*"))
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in left]


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _problem(folder: Path, manifest: Manifest) -> str | None:
    if manifest.id != folder.name:
        return f"its manifest is that of {manifest.id}"
    return next((problem for entry in manifest.files if (problem := _file_problem(folder, entry))), None)


def _file_problem(folder: Path, entry: FileEntry) -> str | None:
    """Compare what costs no reading; ``verify`` reads."""
    try:
        size = (folder / entry.name).stat().st_size
    except FileNotFoundError:
        return f"{entry.name} is gone"
    return f"{entry.name} has {size} bytes; {entry.size} were written" if size != entry.size else None


def _refused(error: OSError) -> bool:
    """True unless the error proves that the file is not there."""
    return not isinstance(error, FileNotFoundError | NotADirectoryError)


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
