"""What a copy of a backup elsewhere says about itself. Pure values.

Beside the manifest a copy has a record of the checkpoint objects that it needs, so that their removal and their
integrity need no key. It is written first, which keeps the objects from being swept, and the manifest last.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from mistudio_ops.domain.backup import MANIFEST_FILE, MARKS_FILE, Manifest, Marks, Verification
from mistudio_ops.errors import VerificationError

RECORD_FILE = "copy.json"
RECORD_FORMAT = 1
OBJECTS = "objects"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class RecordError(VerificationError):
    """The record of a copy is not what was written."""

    code = "bad_copy_record"


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """A checkpoint object as it lies there. ``name`` is below ``objects/FINGERPRINT``."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """The objects of a copy. ``unproven`` were being sent: they are read back before they are relied upon."""

    id: str
    environment: str
    fingerprint: str
    objects: tuple[CopiedObject, ...] = ()
    unproven: tuple[str, ...] = ()

    def render(self) -> bytes:
        """Return the one form in which it is written."""
        document = asdict(self) | {"format": RECORD_FORMAT}
        return json.dumps(document | {"sha256": _digest(document)}, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> "CopyRecord":
        """Return the record that ``raw`` is.

        Raises:
            RecordError: it was cut, edited, or written by a later release, or names files outside.
        """
        try:
            document = json.loads(raw)
            sound = document.pop("sha256") == _digest(document) and document.pop("format") == RECORD_FORMAT
            objects = tuple(CopiedObject(**one) for one in document.pop("objects"))
            record = cls(**document | {"objects": objects, "unproven": tuple(document["unproven"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(f"{RECORD_FILE} cannot be read: {type(error).__name__}") from error
        names = [*(one.name for one in objects), *record.unproven, record.fingerprint]
        if not sound or not all(safe_name(name) for name in names):
            raise RecordError(f"{RECORD_FILE} was changed after it was written")
        return record


def safe_name(name: str) -> bool:
    """Return whether a relative name stays below its folder and hides nothing."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "/".join(parts) == name and all(_PLAIN_NAME.fullmatch(part) for part in parts)


def unsafe_name(manifest: Manifest) -> str | None:
    """Return the first file name of a manifest from elsewhere that would be written where it does not belong."""
    taken = {MANIFEST_FILE, MARKS_FILE, RECORD_FILE}
    names = (entry.name for entry in manifest.files)
    bad = (name for name in names if "/" in name or name in taken or not safe_name(name))
    return next(bad, None if safe_name(manifest.encryption.fingerprint) else manifest.encryption.fingerprint)


def name_in(backup_id: str, file: str) -> str:
    """Return the name of a backup's file at a destination."""
    return f"{backup_id}/{file}"


def object_name(fingerprint: str, name: str) -> str:
    """Return the name of a checkpoint object at a destination."""
    return f"{OBJECTS}/{fingerprint}/{name}"


def travelling(here: Marks, there: Marks, proven: Verification | None = None) -> Marks:
    """Return the marks that a copy gets: the pin, what was proven of its content, and ``proven`` of its bytes.

    A copy is the same bytes, so what was read and restored here holds there; the hashes are those of its own disk.
    """
    content = tuple(one for one in here.verifications if one.ok and one.level != "hash")
    bytes_there = () if proven else tuple(one for one in there.verifications if one.level == "hash")
    marks = Marks(here.pinned or here.damaged, here.pin_reason, (*content, *bytes_there))
    return Marks(marks.pinned, marks.pin_reason, (*marks.verifications, proven)) if proven else marks


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
