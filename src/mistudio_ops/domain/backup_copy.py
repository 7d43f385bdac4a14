"""Copies of backups elsewhere: their names, and the checkpoint objects that they need. Pure values.

A destination is laid out as a backup directory is. What comes from there is not trusted: names are checked before
anything is written under them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from mistudio_ops.domain.backup import MANIFEST_FILE, MARKS_FILE, FileEntry, Manifest, Marks, Verification
from mistudio_ops.errors import VerificationError

OBJECTS = "objects"
OBJECTS_FILE = "objects.txt"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_OBJECT = re.compile(r"([0-9a-f]{64}) (\d+) ([0-9a-f]{64}) (\d+)")


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """A checkpoint object: its name from the destination's top, size and sha256 of its file."""

    name: str
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str

    def entry(self) -> FileEntry:
        """Return what its file is compared with."""
        return FileEntry(self.name, "checkpoints", self.size, self.sha256, self.plain_size, self.plain_sha256)


def object_list(manifest: Manifest) -> FileEntry | None:
    """Return the entry of the file that lists a backup's checkpoint objects; None where it needs none.

    Raises:
        VerificationError: it holds checkpoints, and no list of them.
    """
    entry = next((one for one in manifest.files if one.name == OBJECTS_FILE), None)
    if entry is None and manifest.checkpoints is not None and manifest.checkpoints.files:
        raise VerificationError(f"backup {manifest.id} holds checkpoints and lists no objects")
    return entry


def parse_objects(raw: bytes, fingerprint: str, suffix: str) -> tuple[CopiedObject, ...]:
    """Return the objects that a list names: a line for each, hash and size of the content, then of the file.

    Raises:
        VerificationError: it is no such list.
    """
    lines = [_OBJECT.fullmatch(line) for line in raw.decode("ascii", "replace").splitlines()]
    if not all(lines):
        raise VerificationError(f"{OBJECTS_FILE} has a line that is none")
    found = (match for match in lines if match)
    folder = f"{OBJECTS}/{fingerprint}"
    return tuple(CopiedObject(f"{folder}/{m[1][:2]}/{m[1]}{suffix}", int(m[4]), m[3], int(m[2]), m[1]) for m in found)


def safe_name(name: str) -> bool:
    """Return whether a relative name stays below its folder and hides nothing."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "/".join(parts) == name and all(_PLAIN_NAME.fullmatch(part) for part in parts)


def unsafe_name(manifest: Manifest) -> str | None:
    """Return the first name in a manifest from elsewhere that would be written where it does not belong."""
    names = [*(entry.name for entry in manifest.files), manifest.encryption.fingerprint]
    taken = {MANIFEST_FILE, MARKS_FILE}
    return next((name for name in names if "/" in name or name in taken or not safe_name(name)), None)


def name_in(backup_id: str, file: str) -> str:
    """Return the name of a backup's file at a destination."""
    return f"{backup_id}/{file}"


def travelling(here: Marks, there: Marks, proven: Verification | None = None) -> Marks:
    """Return the marks that a copy gets: the pin, what was proven of its content, and ``proven`` of its bytes.

    A copy is the same bytes, so what was read and restored here holds there; the hashes are those of its own disk.
    """
    content = tuple(one for one in here.verifications if one.ok and one.level != "hash")
    bytes_there = (proven,) if proven else _of_bytes(there.verifications)
    return Marks(here.pinned or here.damaged, here.pin_reason, (*content, *bytes_there))


def _of_bytes(verifications: Iterable[Verification]) -> tuple[Verification, ...]:
    return tuple(one for one in verifications if one.level == "hash")
