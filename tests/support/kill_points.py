"""Kill a process by SIGKILL at its N-th act on the file system, its N-th program, its N-th connection, for every N.

Python's audit events name these moments. A driver of its own process forks for each, so that everything is imported
once and a kill costs what the work costs. Run as ``python -m tests.support.kill_points DATABASE_URL FOLDER``.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mistudio_ops.operations.backup.create import create
from tests.support.backup_workplace import workplace_of

#: What changes something outside of the process.
EVENTS = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "subprocess.Popen", "os.truncate", "os.killpg"}
)


def killed_at(point: int, act: Callable[[], None], root: str) -> bool:
    """Run ``act`` in a child that is killed before its ``point``-th event; return False when it ended before."""
    child = os.fork()
    if child == 0:
        _die_at(point, root)
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"the child failed at point {point}: see its traceback above")
    return False


def _die_at(point: int, root: str) -> None:
    left = point

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in EVENTS or (event == "open" and _opened_for_writing(arguments, root)):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _opened_for_writing(arguments: tuple[Any, ...], root: str) -> bool:
    path, _, flags = arguments
    return (
        isinstance(path, str | os.PathLike) and str(path).startswith(root) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    )


def main(database_url: str, folder: str) -> None:
    """Kill a backup at every point; print what was seen after each as JSON."""
    workplace = workplace_of(database_url, Path(folder), include=("checkpoints",))
    seen = []
    point = 0
    while killed_at(point, lambda: create(workplace, kind="manual") and None, folder):
        point += 1
        seen.append([(one.id, one.good, one.problem) for one in workplace.directory.all()])
    print(json.dumps({"kills": point, "seen": seen}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
