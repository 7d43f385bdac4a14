"""The checkpoint objects that a backup refers to, by the names that they have here and at every destination."""

import hashlib
from dataclasses import dataclass

from mistudio_ops.domain.backup import FileEntry, Manifest, StoredBackup
from mistudio_ops.domain.backup_copy import OBJECTS, name_in
from mistudio_ops.drivers.archive_file import file_suffix
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.checkpoint_objects import StoredObject, objects_of, parse_objects
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.transfer import Transfer


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """One object: ``name`` is relative to the backup directory, or the destination; the entry is that of its file."""

    name: str
    entry: FileEntry

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return self.entry.size

    @property
    def sha256(self) -> str:
        """Hash of its file."""
        return self.entry.sha256


def objects_here(directory: BackupDirectory, stored: StoredBackup) -> tuple[CopiedObject, ...]:
    """Return the objects of a backup of this machine.

    Raises:
        VerificationError: that cannot be known.
    """
    return _named(objects_of(directory, stored), stored.manifest) if stored.manifest else ()


def objects_there(transfer: Transfer, manifest: Manifest) -> tuple[CopiedObject, ...]:
    """Return the objects of a copy.

    Raises:
        VerificationError: that cannot be known.
    """
    entry = manifest.file("objects")
    if entry is None:
        if manifest.checkpoints is not None:
            raise VerificationError("it holds checkpoints and lists no objects")
        return ()
    raw = transfer.text(name_in(manifest.id, entry.name))
    if raw is None or hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise VerificationError(f"{entry.name} is {'missing' if raw is None else 'damaged'}")
    try:
        return _named(parse_objects(raw), manifest)
    except ValueError as error:
        raise VerificationError(f"{entry.name} cannot be read: {error}") from error


def _named(objects: tuple[StoredObject, ...], manifest: Manifest) -> tuple[CopiedObject, ...]:
    suffix, folder = file_suffix(manifest.encryption), f"{OBJECTS}/{manifest.encryption.fingerprint}"
    return tuple(
        CopiedObject(f"{folder}/{one.plain_sha256[:2]}/{one.plain_sha256}{suffix}", one.entry(suffix))
        for one in objects
    )
