"""Writing files so that a reader, or a crash, never sees half of one."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int = 0o600, own: Callable[[Path], None] | None = None) -> None:
    """Replace ``path`` by ``text``. The file has its final mode and owner before it gets its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if own is not None:
        own(partial)
    partial.replace(path)


def point_at(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to ``target``, atomically."""
    partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def tail(path: Path, lines: int, *, limit: int = 256 * 1024) -> list[str]:
    """Return the last ``lines`` lines of a log, reading at most ``limit`` bytes; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:] if lines > 0 else []
