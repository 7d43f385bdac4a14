"""The machine itself: interpreter, processors, memory, disk, open files, GPU."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mistudio_ops.domain.check import Finding
from mistudio_ops.domain.environment import Environment
from mistudio_ops.operations.health.machine import Usage, disk_finding

_GIB = 1024**3
_MINIMUM_PYTHON = (3, 11)
#: The whole stack idles in about half a gigabyte; a training needs room beside it.
_FAIL_MEMORY = 0.7 * _GIB
_WARN_MEMORY = 2.0 * _GIB
_FEW_FILES = 4096


def python_finding(version: tuple[int, ...] = sys.version_info[:3], executable: str = sys.executable) -> Finding:
    """Judge the interpreter that units will run with."""
    text = f"Python {'.'.join(map(str, version))} at {executable}, {platform.machine()}"
    if version[:2] < _MINIMUM_PYTHON:
        return Finding.bad(text, "install Python 3.11 or newer, and mistudio into a virtual environment of it")
    return Finding.good(text)


def cores_finding(count: int | None = None) -> Finding:
    """Count the processors that we may use."""
    cores = len(os.sched_getaffinity(0)) if count is None else count
    text = f"{cores} processor{'s' if cores != 1 else ''}"
    if cores < 2:  # noqa: PLR2004 - one for the training, one for everything else
        return Finding.poor(text, "a training will slow the API down; set torch_num_threads and fewer backends")
    return Finding.good(text)


def memory_finding(meminfo: Mapping[str, int] | None = None) -> Finding:
    """Judge the memory that is available now, in bytes by /proc/meminfo's names."""
    known = read_meminfo() if meminfo is None else meminfo
    available, total = known.get("MemAvailable", 0), known.get("MemTotal", 0)
    text = f"{available / _GIB:.1f} GiB available of {total / _GIB:.1f}"
    if available < _FAIL_MEMORY:
        return Finding.bad(text, "stop something else first, or set backends = 1; the stack idles in 0.5 GiB")
    if available < _WARN_MEMORY:
        return Finding.poor(text, "little is left for trainings: set backends = 1, or use a smaller batch")
    return Finding.good(text)


def read_meminfo(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Return /proc/meminfo in bytes; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in parts if len(words) > 1 and words[1].isdigit()}


def disk_space_finding(environment: Environment, usage: Callable[[Path], Usage] = shutil.disk_usage) -> Finding:
    """Measure the file system that the state directory is, or will be, on."""
    folder = environment.state_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return disk_finding("state", folder, usage(existing))


def open_files_finding(limits: tuple[int, int] | None = None) -> Finding:
    """Judge how many files one process may open: each client of nginx takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if limits is None else limits
    text = f"a process may open {soft} files, {hard} on request"
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        return Finding.poor(text, "raise nofile in /etc/security/limits.conf for many clients")
    return Finding.good(text)


def gpu_finding(names: Callable[[], list[str]] | None = None) -> Finding:
    """List the GPUs that the driver knows. None is no fault: trainings run on the CPU."""
    try:
        found = (names or nvidia_gpus)()
    except Exception as error:  # noqa: BLE001 - no driver, no library, no permission: all the same here
        return Finding.good(f"no NVIDIA GPU ({str(error) or type(error).__name__}); trainings run on the CPU")
    return Finding.good(", ".join(found) if found else "no NVIDIA GPU; trainings run on the CPU")


def nvidia_gpus() -> list[str]:
    """Return name and memory of each GPU, by NVML."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [
            f"{pynvml.nvmlDeviceGetName(handle)} ({pynvml.nvmlDeviceGetMemoryInfo(handle).total / _GIB:.0f} GiB)"
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()
