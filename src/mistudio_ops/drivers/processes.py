"""Looking at processes: their memory, and those that a folder's servers left behind. Nothing here kills."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that still refers to the folder."""

    pid: int
    command: str


def proportional_memory(pid: int) -> int | None:
    """Return the PSS of a process and its descendants in bytes: shared pages divided among those who share them.

    None when the process is gone or is not ours to look at.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        members = [process, *process.children(recursive=True)]
    except psutil.Error:
        return None
    sizes = [size for member in members if (size := _pss(member.pid)) is not None]
    return sum(sizes) if sizes else None


def _pss(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith("Pss:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def referring_to(folder: Path) -> tuple[Survivor, ...]:
    """Return the processes whose command line, working directory or environment lie in ``folder``.

    We and the processes above us (a shell that stands in the folder) do not count.
    """
    import psutil

    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: list[Survivor] = []
    for process in psutil.process_iter(["pid", "cmdline", "name", "status"]):
        if process.info["pid"] in ours or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if _refers(process.info["pid"], process.info["cmdline"] or [], folder):
            command = " ".join(process.info["cmdline"] or [process.info["name"]])[:120]
            found.append(Survivor(process.info["pid"], command))
    return tuple(found)


def _refers(pid: int, argv: list[str], folder: Path) -> bool:
    needle = f"{folder}/"
    if any(needle in argument for argument in argv):
        return True
    try:
        if f"{Path(f'/proc/{pid}/cwd').readlink()}/".startswith(needle):
            return True
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"MISTUDIO_UNIT_DIR={folder}".encode() in environment
