"""A program: restore a database, killed at another action each time, and go on or back from there.

Prints one JSON document: how many actions there are, and everything that was not as it must be.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mistudio_ops.errors import NothingFoundError
from mistudio_ops.operations.restore.afterwards import abort, finalize, status
from mistudio_ops.operations.restore.restore import restore, resume
from tests.support.backup_workplace import workplace_of
from tests.support.killing import killed_at_every_action
from tests.support.restores import Restorable, restorable

OLD, NEW = [1, 2, 3, 4, 5], [1, 2, 3]


def main(database_url: str, folder: str, first: int, every: int) -> None:
    """Run them, and report."""
    lab = restorable(workplace_of(database_url, Path(folder)), database_url)
    wrong: list[str] = []
    actions: list[str] = []
    operation = lambda: restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)  # noqa: E731
    for killed in killed_at_every_action(operation, first=first, every=every):
        actions.append(killed.action)
        where = f"killed at {killed.n} ({killed.action})"
        if lab.rows() not in (OLD, NEW):
            wrong.append(f"{where}: half a database serves: {lab.rows()}")
        if killed.finished:
            break
        forwards = killed.n // every % 2 == 0
        wrong += [f"{where}: {problem}" for problem in _finish(lab, forwards=forwards)]
        _reset(lab)
    print(json.dumps({"actions": len(actions), "wrong": wrong, "seen": actions}))


def _finish(lab: Restorable, *, forwards: bool) -> list[str]:
    """Go on or back, and say what is not as it must be then."""
    before = lab.rows()
    ended = status(lab.workplace, lab=lab.lab).interrupted is None  # killed so late, or so early, that nothing is open
    problem = _in_child(lambda: (resume if forwards else abort)(lab.workplace, lab=lab.lab))
    if problem is not None:
        return [problem]
    if lab.rows() != (before if ended else NEW if forwards else OLD):
        return [f"{'resumed' if forwards else 'aborted'}, and the rows are {lab.rows()}; they were {before}"]
    if "restore" in lab.ours():
        return [f"left behind: {lab.names()}"]
    return []


def _reset(lab: Restorable) -> None:
    def back() -> None:
        with suppress(NothingFoundError):
            finalize(lab.workplace, lab=lab.lab)

    _in_child(back)
    lab.add(*(number for number in OLD if number not in lab.rows()))


def _in_child(work: Callable[[], object]) -> str | None:
    """Run ``work`` in a child, so that this process stays without threads; return its traceback, None if it is well.

    Nothing to resume or abort is well: the kill came before anything had begun.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            with suppress(NothingFoundError):
                work()
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writer, traceback.format_exc()[-4000:].encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said or None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
