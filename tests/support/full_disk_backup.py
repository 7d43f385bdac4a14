"""A program: make backups that may write no file beyond so many bytes, for many such limits; see what is there after.

Prints one JSON document: how many were tried, how many failed, and everything that was not as it must be.
"""

import json
import os
import resource
import sys
from pathlib import Path

from mistudio_ops.drivers.archive_file import verify_hash
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.backup.create import create
from tests.support.backup_workplace import workplace_of
from tests.support.killing import leftovers

UNEXPECTED = 3


def main(database_url: str, folder: str, every: int) -> None:
    """Try each ``every``-th limit up to that which is enough, and report."""
    workplace = workplace_of(database_url, Path(folder))
    directory = workplace.directory
    directory.prepare()
    wrong: list[str] = []
    failed = tried = 0
    limit = 0
    while not directory.all():
        tried += 1
        failed += _limited(lambda: create(workplace, kind="manual"), limit, wrong)
        if left := leftovers(directory.root):
            wrong.append(f"limit {limit}: left {left}")
        limit += every
    (made,) = directory.all()
    if not made.good or made.manifest is None:
        wrong.append(f"limit {limit}: {made.problem}")
    else:
        for entry in made.manifest.files:
            verify_hash(directory.path(made.id) / entry.name, entry)
    print(json.dumps({"tried": tried, "failed": failed, "largest": limit, "wrong": wrong}))


def _limited(work: object, limit: int, wrong: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        code = UNEXPECTED
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            work()  # type: ignore[operator]
            code = 0
        except OpsError:
            code = 1
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(2, f"limit {limit}: {type(error).__name__}: {error}\n".encode())
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in {0, 1}:
        wrong.append(f"limit {limit}: it ended with {code}")
    return int(code != 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
