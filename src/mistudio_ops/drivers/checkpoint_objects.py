"""Checkpoint files that backups share: each stored once by the sha256 of its content, compressed and encrypted.

    objects/FINGERPRINT/ab/ab12...zst[.age]   one file; FINGERPRINT names the keys that it is encrypted for
    objects/FINGERPRINT/seen.json             size, times and hash of the files that were read: saves reading, no more
    ID/checkpoints.json.zst[.age]             a backup's index: which content lies at which path
    ID/objects.txt                            the objects that the index refers to, by hashes only

``objects.txt`` needs no key. So what is still referred to can be known, and whether it lies there unharmed, on a
machine that can write backups but not read them. Its own hash is in the manifest.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mistudio_ops.domain.backup import FileEntry, StoredBackup
from mistudio_ops.drivers.archive_file import DamagedFileError, OnBytes, Source, file_suffix, verify_hash, write_archive
from mistudio_ops.drivers.backup_directory import BackupDirectory, sync_folder
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.errors import VerificationError

OBJECTS_FILE = "objects.txt"
_SEEN_FILE = "seen.json"
_PARTIAL = ".partial-"
_LINE = re.compile(r"([0-9a-f]{64}) (\d+) ([0-9a-f]{64}) (\d+)")


class UnknownReferencesError(VerificationError):
    """It cannot be said which objects backups refer to, so none may be removed; the message names the backup."""

    code = "unknown_references"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: sha256 and size of its content, and sha256 and size of its file."""

    plain_sha256: str
    plain_size: int
    sha256: str
    size: int

    def entry(self, suffix: str) -> FileEntry:
        """Return what ``read_archive`` and ``verify_hash`` compare its file with."""
        name = f"{self.plain_sha256}{suffix}"
        return FileEntry(name, "checkpoints", self.size, self.sha256, self.plain_size, self.plain_sha256)


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells that a file was not written since: its size, its times (nanoseconds) and its place on the disk."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stat":
        """Return it of what ``stat`` said."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class ObjectStore:
    """The objects written with one set of keys. Hold the directory's lock to write."""

    def __init__(self, directory: BackupDirectory, keys: Keys) -> None:
        self._directory, self._keys = directory, keys
        self.root = directory.objects(keys.encryption.fingerprint)
        self._suffix = file_suffix(keys.encryption)
        self._known: dict[str, StoredObject] = {}

    def open(self, backups: Iterable[StoredBackup]) -> None:
        """Learn which objects backups refer to. Others, of runs that were killed, are written anew.

        A backup that failed its verification may have failed because of an object: those are read again, so that a
        damaged one is stored once more and not passed on from backup to backup.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        suspects: dict[str, StoredObject] = {}
        for stored in backups:
            if stored.manifest is None or stored.manifest.encryption.fingerprint != self._keys.encryption.fingerprint:
                continue
            try:
                found = {one.plain_sha256: one for one in objects_of(self._directory, stored)}
            except VerificationError:
                continue  # sweeping says so; here it only means that something is stored once more
            self._known |= found
            suspects |= {} if stored.good else found
        for one in suspects.values():
            if not self._sound(one):
                self._known.pop(one.plain_sha256, None)

    def find(self, sha256: str) -> StoredObject | None:
        """Return the object of that content if it is known and its file has the size that it should have."""
        known = self._known.get(sha256)
        if known is None:
            return None
        try:
            size = self._path(sha256).stat().st_size
        except OSError:
            return None
        return known if size == known.size else None

    def add(self, source: Source, *, on_bytes: OnBytes | None = None) -> tuple[StoredObject, bool]:
        """Store what ``source`` gives; return the object, and whether its content was new.

        Raises:
            OSError: the disk is full, or the source cannot be read.
        """
        partial = self.root / f"{_PARTIAL}{secrets.token_hex(8)}{self._suffix}"
        try:
            entry = write_archive(source, partial, "checkpoints", self._keys, on_bytes=on_bytes)
            known = self.find(entry.plain_sha256)
            if known is not None:
                return known, False
            target = self._path(entry.plain_sha256)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            partial.rename(target)
            sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)
        added = StoredObject(entry.plain_sha256, entry.plain_size, entry.sha256, entry.size)
        self._known[added.plain_sha256] = added
        return added, True

    def seen(self) -> dict[str, tuple[Stat, str]]:
        """Return the hash of each file that was read before, by path, with what it looked like then."""
        try:
            document = json.loads((self.root / _SEEN_FILE).read_text())
            return {path: (Stat(*map(int, one["stat"])), str(one["sha256"])) for path, one in document.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def remember(self, seen: Mapping[str, tuple[Stat, str]]) -> None:
        """Replace what ``seen`` returns."""
        from mistudio_ops.drivers.files import write_atomically

        document = {
            path: {"stat": list(asdict(stat).values()), "sha256": sha256} for path, (stat, sha256) in seen.items()
        }
        write_atomically(self.root / _SEEN_FILE, json.dumps(document))

    def sync(self) -> None:
        """Write the names of new folders through to the disk."""
        for folder in (self.root, self.root.parent, self.root.parent.parent):
            sync_folder(folder)

    def _sound(self, one: StoredObject) -> bool:
        try:
            verify_hash(self._path(one.plain_sha256), one.entry(self._suffix))
        except DamagedFileError:
            return False
        return True

    def _path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / f"{sha256}{self._suffix}"


def object_path(directory: BackupDirectory, stored: StoredBackup, sha256: str) -> Path:
    """Return where the object with that content lies for one backup.

    Raises:
        VerificationError: the backup has no sound manifest.
    """
    if stored.manifest is None:
        raise VerificationError(f"backup {stored.id} cannot be used: {stored.problem}")
    encryption = stored.manifest.encryption
    return directory.objects(encryption.fingerprint) / sha256[:2] / f"{sha256}{file_suffix(encryption)}"


def render_objects(objects: Iterable[StoredObject]) -> bytes:
    """Return the content of ``objects.txt``: a line for each, in order."""
    lines = sorted({f"{one.plain_sha256} {one.plain_size} {one.sha256} {one.size}\n" for one in objects})
    return "".join(lines).encode()


def parse_objects(raw: bytes) -> tuple[StoredObject, ...]:
    """Return what ``render_objects`` was given.

    Raises:
        ValueError: it is no such list.
    """
    found = [_LINE.fullmatch(line) for line in raw.decode("ascii").splitlines()]
    if not all(found):
        raise ValueError("it has a line that is none")
    return tuple(StoredObject(m[1], int(m[2]), m[3], int(m[4])) for m in found if m)


def objects_of(directory: BackupDirectory, stored: StoredBackup) -> tuple[StoredObject, ...]:
    """Return the objects that a backup refers to; none where it holds no checkpoints. No key is needed.

    Raises:
        UnknownReferencesError: that cannot be known: its manifest or its list is damaged.
    """
    if stored.manifest is None:
        raise UnknownReferencesError(f"backup {stored.id} cannot be read: {stored.problem}", hint=_hint(stored))
    entry = stored.manifest.file("objects")
    if entry is None:
        if stored.manifest.checkpoints is not None:
            raise UnknownReferencesError(f"backup {stored.id} lists no objects", hint=_hint(stored))
        return ()
    path = directory.path(stored.id) / entry.name
    try:
        verify_hash(path, entry)
        return parse_objects(path.read_bytes())
    except (DamagedFileError, OSError, ValueError) as error:
        raise UnknownReferencesError(f"the objects of backup {stored.id}: {error}", hint=_hint(stored)) from error


def verify_objects(directory: BackupDirectory, stored: StoredBackup, *, on_bytes: OnBytes | None = None) -> None:
    """Compare every object of a backup, as it lies there, with what was written. No key is needed.

    Raises:
        DamagedFileError: one is gone or damaged.
        UnknownReferencesError: as ``objects_of``.
    """
    for one in objects_of(directory, stored):
        path = object_path(directory, stored, one.plain_sha256)
        verify_hash(path, one.entry(path.name.removeprefix(one.plain_sha256)), on_bytes=on_bytes)


def clean_objects(directory: BackupDirectory) -> int:
    """Remove what killed commands left half-written; return the number of files. Hold the lock."""
    left = list((directory.root / "objects").glob(f"*/{_PARTIAL}*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def sweep_objects(directory: BackupDirectory) -> tuple[int, int]:
    """Remove the objects that no backup refers to; return how many, and their bytes. Hold the lock.

    Folders of backups that cannot be used count too: as long as one of them cannot say what it refers to, nothing is
    removed.

    Raises:
        UnknownReferencesError: a backup's references cannot be known. Nothing was removed.
    """
    needed = {
        object_path(directory, stored, one.plain_sha256)
        for stored in directory.all()
        for one in objects_of(directory, stored)
    }
    doomed = [path for path in (directory.root / "objects").glob("*/??/*") if path not in needed]
    size = sum(path.stat().st_size for path in doomed)
    for path in doomed:
        path.unlink()
    return len(doomed), size


def _hint(stored: StoredBackup) -> str:
    return f"nothing is removed until it is whole again or gone; its folder is {stored.id}"
