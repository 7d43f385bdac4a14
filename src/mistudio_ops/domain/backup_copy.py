"""Copies of backups elsewhere: their names and marks. Pure values.

A destination is laid out as a backup directory is. What comes from there is not trusted: names are checked before
anything is written under them.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mistudio_ops.domain.backup import MANIFEST_FILE, MARKS_FILE, Manifest, Marks, Verification

OBJECTS = "objects"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


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
