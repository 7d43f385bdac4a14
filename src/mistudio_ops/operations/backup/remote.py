"""What lies at a destination."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mistudio_ops.domain.backup import (
    ID_PATTERN,
    MANIFEST_FILE,
    MARKS_FILE,
    FileEntry,
    Manifest,
    ManifestError,
    Marks,
    StoredBackup,
)
from mistudio_ops.domain.backup_copy import name_in, unsafe_name
from mistudio_ops.drivers.destinations import PARTIAL
from mistudio_ops.drivers.destinations.choose import open_destination
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.copied_objects import CopiedObject, objects_there
from mistudio_ops.operations.backup.transfer import PATIENT, Patience, Transfer
from mistudio_ops.operations.backup.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Copy:
    """A folder there. ``objects`` are the checkpoint objects that it refers to, None when that cannot be known."""

    stored: StoredBackup
    names: tuple[str, ...]
    objects: tuple[CopiedObject, ...] | None = None

    @property
    def begun(self) -> bool:
        """True when there is no manifest: a copy or a removal that did not end."""
        return name_in(self.stored.id, MANIFEST_FILE) not in self.names


@dataclass(frozen=True, slots=True)
class Copies:
    """All that is there: ``sizes`` of every file by name, and the folders that are, or were to be, backups."""

    sizes: Mapping[str, int]
    all: tuple[Copy, ...]

    @property
    def backups(self) -> list[StoredBackup]:
        """Backups, oldest first; those that cannot be used say why. Half-made ones are none."""
        return sorted((one.stored for one in self.all if not one.begun), key=lambda one: (one.sequence, one.id))

    @property
    def vouched(self) -> set[str]:
        """Names of the objects of good copies: they were read back before their manifest was written."""
        return {one.name for copy in self.all if copy.stored.good for one in copy.objects or ()}

    @property
    def partials(self) -> list[str]:
        """Names that a killed push left half-written."""
        return [name for name in self.sizes if name.rpartition("/")[2].startswith(PARTIAL)]

    def get(self, backup_id: str) -> Copy | None:
        """Return one folder."""
        return next((one for one in self.all if one.stored.id == backup_id), None)


def remote_backups(workplace: Workplace, url: str, *, patience: Patience = PATIENT) -> list[StoredBackup]:
    """Return the backups at a destination, oldest first; those that cannot be used say why.

    Sizes are compared, contents are not read.

    Raises:
        DestinationError: it refuses.
        UnreachableError: it does not answer.
    """
    with open_destination(url, workplace.environ) as destination:
        return look(Transfer(destination, patience)).backups


def look(transfer: Transfer) -> Copies:
    """Read what is there."""
    sizes = transfer.names()
    folders: dict[str, list[str]] = {}
    for name in sizes:
        folder, _, rest = name.partition("/")
        if rest and ID_PATTERN.fullmatch(folder):
            folders.setdefault(folder, []).append(name)
    return Copies(sizes, tuple(_copy(transfer, one, tuple(folders[one]), sizes) for one in sorted(folders)))


def _copy(transfer: Transfer, backup_id: str, names: tuple[str, ...], sizes: Mapping[str, int]) -> Copy:
    stored = _stored(transfer, backup_id, names, sizes)
    if stored.manifest is None or stored.problem is not None:
        return Copy(stored, names)
    try:
        objects = objects_there(transfer, stored.manifest)
    except VerificationError as error:
        return Copy(replace(stored, problem=error.message), names)
    return Copy(replace(stored, problem=_objects_problem(objects, sizes)), names, objects)


def _stored(transfer: Transfer, backup_id: str, names: tuple[str, ...], sizes: Mapping[str, int]) -> StoredBackup:
    raw = _small(transfer, name_in(backup_id, MANIFEST_FILE), names)
    marks = _small(transfer, name_in(backup_id, MARKS_FILE), names)
    found = Marks.parse(marks) if marks is not None else Marks()
    if raw is None:
        return StoredBackup(backup_id, None, found, "it is not complete: it has no manifest")
    try:
        manifest = Manifest.parse(raw)
    except ManifestError as error:
        return StoredBackup(backup_id, None, found, f"its manifest is damaged: {error.message}")
    return StoredBackup(backup_id, manifest, found, _problem(backup_id, manifest, sizes))


def _small(transfer: Transfer, name: str, names: tuple[str, ...]) -> bytes | None:
    return transfer.text(name) if name in names else None


def _problem(backup_id: str, manifest: Manifest, sizes: Mapping[str, int]) -> str | None:
    if manifest.id != backup_id:
        return f"its manifest is that of {manifest.id}"
    if (unsafe := unsafe_name(manifest)) is not None:
        return f"its manifest names a file {unsafe!r}, which cannot be one of a backup"
    found = (_file_problem(entry, sizes.get(name_in(backup_id, entry.name))) for entry in manifest.files)
    return next((problem for problem in found if problem), None)


def _file_problem(entry: FileEntry, size: int | None) -> str | None:
    if size is None:
        return f"{entry.name} is missing"
    return f"{entry.name} has {size} bytes; {entry.size} were written" if size != entry.size else None


def _objects_problem(objects: tuple[CopiedObject, ...], sizes: Mapping[str, int]) -> str | None:
    bad = [one for one in objects if sizes.get(one.name) != one.size]
    return f"{len(bad)} checkpoint objects are missing or cut, such as {bad[0].name}" if bad else None
