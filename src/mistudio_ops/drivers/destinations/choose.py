"""From a URL to the place that it names."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mistudio_ops.drivers.destinations import Destination
from mistudio_ops.errors import UsageError

_FORMS = "write /a/folder, ssh://user@host:22/folder or s3://bucket/prefix?endpoint=https://host:9000"


def open_destination(url: str, environ: Mapping[str, str], *, apart_from: Path | None = None) -> Destination:
    """Return the destination; nothing is connected to yet. ``apart_from``: a folder that it may not be, or be in.

    Raises:
        UsageError: the URL is none that we know, or an extra is not installed.
    """
    parts = urlsplit(url)
    if parts.password:
        raise UsageError("a password does not belong into a URL", hint="use a key: ssh-copy-id, or AWS_* variables")
    if parts.scheme == "ssh" and parts.hostname and parts.path.strip("/"):
        _require("asyncssh")
        from mistudio_ops.drivers.destinations.sftp import Sftp

        return Sftp(parts)
    if parts.scheme == "s3" and parts.hostname:
        _require("obstore")
        from mistudio_ops.drivers.destinations.s3 import S3

        return S3(parts, environ)
    if parts.scheme in {"", "file"} and parts.path.startswith("/") and not parts.netloc:
        from mistudio_ops.drivers.destinations.folder import Folder

        return Folder(_separate(Path(unquote(parts.path) if parts.scheme else url), apart_from))
    raise UsageError(f"{url!r} names no place for copies", hint=_FORMS)


def _separate(folder: Path, other: Path | None) -> Path:
    if other is not None:
        ours, theirs = folder.resolve(), other.resolve()
        if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
            raise UsageError(
                f"{folder} and the backup directory {other} lie within each other",
                hint="name a folder apart from it, best on another disk",
            )
    return folder


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise UsageError(f"copies to this place need {module}", hint="pip install 'mistudio[offsite]'")
