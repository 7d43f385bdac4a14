"""Where files may be: every path that a user names must resolve, symbolic links followed, to a place below DATA_DIR."""

import os
from pathlib import Path

from mistudio_server.errors import InvalidPathError

#: Folders that the studio makes itself: datasets/<id>, models/<id>, activations/<id>, checkpoints/<id>.
_OWN_FOLDERS = ("datasets", "models", "activations", "checkpoints")
INCOMING = ".incoming"
TRASH = ".trash"


def resolve_inside(data_dir: Path, path: str) -> Path:
    """Return the real, absolute path of ``path`` (absolute, or relative to DATA_DIR).

    Raises:
        InvalidPathError: outside DATA_DIR, the studio's own working folders, missing, or unreadable.
    """
    root = data_dir.resolve()
    try:
        real = (root / path).resolve(strict=True)
    except FileNotFoundError:
        raise _invalid(path, f"There is no file or folder {path!r} in DATA_DIR.") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise _invalid(path, f"{path!r} cannot be opened: {_reason(error)}.") from error
    if not real.is_relative_to(root) or real == root:
        raise _invalid(path, f"{path!r} is outside DATA_DIR (symbolic links are followed).")
    if real.relative_to(root).parts[0] in (INCOMING, TRASH):
        raise _invalid(path, f"{path!r} is in a working folder of the studio.")
    if not os.access(real, os.R_OK):
        raise _invalid(path, f"{path!r} may not be read by the studio's account.")
    return real


def relative(data_dir: Path, path: Path) -> str:
    """Return ``path`` as the database stores it: relative to DATA_DIR."""
    return path.relative_to(data_dir.resolve()).as_posix()


def owned_folder(data_dir: Path, path: str, identifier: str) -> Path | None:
    """Return the folder that the studio made for ``identifier``, or None when ``path`` was only registered."""
    parts = Path(path).parts
    if len(parts) >= 2 and parts[0] in _OWN_FOLDERS and parts[1] == identifier:  # noqa: PLR2004
        return data_dir.resolve() / parts[0] / parts[1]
    return None


def _invalid(path: str, detail: str) -> InvalidPathError:
    return InvalidPathError(
        detail,
        hint="Put the file or folder below DATA_DIR and give its path relative to it, or upload it.",
        errors=[{"field": "body.path", "value": path, "message": detail}],
    )


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
