"""A program: make backups of a database, each killed at another of its actions, and look at what is there after each.

Prints one JSON document: how many actions there are, and everything that was not as it must be.
"""

import json
import sys
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.archive_file import verify_hash
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter
from tests.support.killing import killed_at_every_action, leftovers


def main(database_url: str, folder: str, first: int, every: int) -> None:
    """Run them, and report."""
    state = Path(folder) / "state"
    state.mkdir(exist_ok=True)
    environment = Environment("local", state, database_url=database_url, data_dir=Path(folder) / "data")
    workplace = Workplace(environment, RecordingReporter(), {})
    directory = workplace.directory
    wrong: list[str] = []
    actions: list[str] = []
    for killed in killed_at_every_action(
        lambda: create(workplace, kind="manual", include=("checkpoints",), lock_wait=20), first=first, every=every
    ):
        actions.append(killed.action)
        for stored in directory.all():
            if not stored.good or stored.manifest is None:
                wrong.append(f"killed at {killed.n} ({killed.action}): {stored.id} is listed, and {stored.problem}")
                continue
            for entry in stored.manifest.files:
                verify_hash(directory.path(stored.id) / entry.name, entry)
        if killed.finished and (left := leftovers(directory.root)):
            wrong.append(f"the last one left {left}")
    print(json.dumps({"actions": len(actions), "backups": len(directory.all()), "wrong": wrong, "seen": actions}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
