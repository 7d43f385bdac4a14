"""Killing an operation at every one of its actions, one after the other.

Python announces what it does to files, processes, sockets and databases to audit hooks before it does it (PEP 578).
A child is forked for each number ``n``; before its ``n``-th action it gets SIGKILL. So every state that a kill can
leave between two actions is seen, in order, without waiting and without luck. Forking needs a process without threads:
use this from a program of its own, not from within pytest.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_STATEMENT = "mistudio.statement"
#: What changes the world, or is about to. Imports and look-ups of names would only add the same states again.
ACTIONS = frozenset(
    {
        "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
        "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree", "fcntl.flock",
        "subprocess.Popen", "socket.connect", "sqlite3.connect", "os.kill", "os.killpg", _STATEMENT,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Killed:
    """One try: ``finished`` when the operation ended before its ``n``-th action, so that there are no more."""

    n: int
    action: str
    finished: bool


def killed_at_every_action(
    operation: Callable[[], Any], *, first: int = 1, every: int = 1, limit: int = 2000
) -> Iterator[Killed]:
    """Run ``operation`` again and again, killed before action ``first``, ``first + every``, ...; the last runs through.

    The caller looks at what is there between two tries. An exception in the operation ends all with its traceback.
    """
    for n in range(first, limit, every):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(operation, n, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            yield Killed(n, said.splitlines()[-1] if said else "?", finished=False)
            continue
        if os.waitstatus_to_exitcode(status) != 0:
            raise AssertionError(f"the operation failed by itself at try {n}:\n{said}")
        yield Killed(n, "", finished=True)
        return
    raise AssertionError(f"more than {limit} actions")


def _child(operation: Callable[[], Any], n: int, writer: int) -> None:
    count = 0
    ours = os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if os.getpid() != ours or not (event in ACTIONS or (event == "open" and _writes(arguments))):
            return
        count += 1
        if count == n:
            os.write(writer, f"{event} {arguments[:2]!r}\n"[:400].encode())
            os.kill(ours, signal.SIGKILL)

    code = 0
    try:
        _announce_statements()
        sys.addaudithook(hook)
        operation()
    except BaseException:  # noqa: BLE001 - told to the parent
        os.write(writer, traceback.format_exc().encode())
        code = 1
    os._exit(code)


def _announce_statements() -> None:
    """Let each SQL statement be an action, too: psycopg's C code announces nothing."""
    execute = psycopg.Cursor.execute

    def announced(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        sys.audit(_STATEMENT, str(query)[:200], None)
        return execute(cursor, query, *arguments, **options)

    psycopg.Cursor.execute = announced  # type: ignore[method-assign]


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return (isinstance(mode, str) and bool(set(mode) & set("wax+"))) or bool(flags & (os.O_WRONLY | os.O_RDWR))


def leftovers(folder: Path) -> list[str]:
    """Return the names in ``folder`` that begin with a dot: half-made or half-removed."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
