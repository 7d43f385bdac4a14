"""Start one unit: become its account, ask the kernel to end it with its supervisor, and exec it.

supervisord runs this file as a script with ``python -I -S``, so it imports nothing but small parts of the standard
library (16 ms). It reads ``UNIT.json`` (the unit's definition, with its secrets: mode 0600) and writes ``RUN.json``
(which definition the process runs, and its process group).

Why not supervisord's own ``user=`` and ``environment=``: the service account can often not read the interpreter, the
secrets would stand in another file, and two things would be missing. When supervisord is killed, its children would
go on with nobody to look after them, holding the ports; PR_SET_PDEATHSIG ends them. And when nginx's master is killed,
its workers go on serving on the port, so that the next master cannot listen there; they are in the dead master's
process group, which is how they are found here, and nobody else is.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 1.0


def main(definition_path: str, run_path: str) -> None:
    """Read the definition, clear what a dead predecessor left, and become the unit."""
    with open(definition_path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 10 ms to import
        text = file.read()
    unit = json.loads(text)
    end_leftovers(run_path)
    write_run_file(run_path, {"digest": hashlib.sha256(text.encode()).hexdigest()[:16], "group": os.getpid()})
    become(unit)
    os.chdir(unit["directory"])
    os.execve(unit["argv"][0], unit["argv"], unit["environment"])  # noqa: S606 - an argv list, no shell


def become(unit: dict[str, object]) -> None:
    """Drop to the unit's account, then ask for its end with the supervisor's (a change of user resets that)."""
    parent = os.getppid()
    os.umask(0o077)
    if unit["uid"] is not None:
        os.setgroups([])
        os.setgid(int(str(unit["gid"])))
        os.setuid(int(str(unit["uid"])))
    number = signal.Signals[f"SIG{unit['stop_signal']}"]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("supervisord is gone")


def end_leftovers(run_path: str) -> None:
    """End the processes of our predecessor's group: it died without them, else we would not be starting."""
    try:
        with open(run_path, encoding="utf-8") as file:  # noqa: PTH123
            group = int(json.load(file)["group"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if group <= 1 or group == os.getpgrp() or not members(group, run_path):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in members(group, run_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while members(group, run_path) and time.monotonic() < deadline:
            time.sleep(0.02)


def members(group: int, run_path: str) -> list[int]:
    """Return the processes of that group that are ours: their working directory lies in our environment's folder.

    Process group numbers are used again after a reboot, so the number alone proves nothing.
    """
    state_dir = os.path.dirname(os.path.dirname(os.path.dirname(run_path)))  # noqa: PTH120 - STATE/run/units/NAME.json
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit():
            continue
        try:
            if os.getpgid(int(entry)) == group and f"{os.readlink(f'/proc/{entry}/cwd')}/".startswith(f"{state_dir}/"):  # noqa: PTH115
                found.append(int(entry))
        except OSError:
            continue
    return found


def write_run_file(path: str, document: dict[str, object]) -> None:
    """Replace the file atomically."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(document, file)
    os.replace(partial, path)  # noqa: PTH105


if __name__ == "__main__":
    main(*sys.argv[1:])
