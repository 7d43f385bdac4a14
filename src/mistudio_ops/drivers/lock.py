"""One operation at a time on an environment: a lock that the kernel releases when its holder dies."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mistudio_ops.errors import LockedError

_POLL_SECONDS = 0.2


@contextmanager
def exclusive(
    path: Path,
    command: str,
    *,
    wait: float = 0.0,
    what: str = "on this environment",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock file at ``path`` (never unlinked) and write into it who we are.

    Who holds it is waited for up to ``wait`` seconds.

    Raises:
        LockedError: another process holds it; the message names its pid, command and since when.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(descriptor):
            if wait <= 0:
                raise _held(path, what)
            sleep(min(wait, _POLL_SECONDS))
            wait -= _POLL_SECONDS
        holder = {"pid": os.getpid(), "since": now().isoformat(timespec="seconds"), "command": command}
        with suppress(OSError):  # a full disk: without the note the lock still holds, and removing things needs it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def command_line() -> str:
    """Return our own command line, for the lock's holder note."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(path: Path, what: str) -> LockedError:
    try:
        holder = json.loads(path.read_text())
        who = f"process {holder['pid']} ({holder['command']}), since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return LockedError(
        f"{who}, works {what}",
        hint="wait for it to end; the lock goes with its process, so there is nothing to remove by hand",
    )
