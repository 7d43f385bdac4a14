"""``make bench``: time to healthy, time of --help, and the memory of the idle studio, as Markdown tables.

Every figure is a median over several runs beside a bare Python start of the same minute, so that it can be compared
between machines.
"""

import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

HELP_RUNS = 15
DEPLOY_RUNS = 3
SETTLE_SECONDS = 15.0
OPS = [sys.executable, "-m", "mistudio_ops"]


def seconds(argv: list[str], environment: dict[str, str] | None = None) -> float:
    """Run ``argv`` and return its wall time; its failure is ours."""
    started = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} exited {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return elapsed


def median_of(runs: int, measure: Callable[[], float]) -> tuple[float, float, float]:
    """Return minimum, median and maximum of ``runs`` measurements."""
    values = sorted(measure() for _ in range(runs))
    return values[0], statistics.median(values), values[-1]


def environment_in(folder: Path) -> dict[str, str]:
    """Return variables for an environment of our own, in ``folder`` and on a block of free ports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {**os.environ, "MISTUDIO_STATE_DIR": str(folder / "state"), "MISTUDIO_PORT": str(min(port, 65_000))}


def timed_deploy() -> float:
    """Deploy from nothing until healthy, and take it down again."""
    with tempfile.TemporaryDirectory(prefix="mistudio-bench-") as folder:
        Path(folder).chmod(0o755)
        environment = environment_in(Path(folder))
        try:
            return seconds([*OPS, "deploy", "local"], environment)
        finally:
            seconds([*OPS, "down", "local"], environment)


def idle_memory() -> list[tuple[str, int, float]]:
    """Return (unit, processes, PSS in MiB) of an idle studio, by its supervisor's process tree."""
    with tempfile.TemporaryDirectory(prefix="mistudio-bench-") as folder:
        Path(folder).chmod(0o755)
        environment = environment_in(Path(folder))
        seconds([*OPS, "deploy", "local"], environment)
        try:
            time.sleep(SETTLE_SECONDS)
            return _memory_by_unit(Path(environment["MISTUDIO_STATE_DIR"]))
        finally:
            seconds([*OPS, "down", "local"], environment)


def _memory_by_unit(state: Path) -> list[tuple[str, int, float]]:
    supervisor = psutil.Process(int((state / "run" / "supervisord.pid").read_text()))
    rows = [("supervisor", 1, _pss(supervisor))]
    for unit in supervisor.children():
        family = [unit, *unit.children(recursive=True)]
        rows.append((_unit_name(unit), len(family), sum(_pss(process) for process in family)))
    return sorted(rows)


def _unit_name(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    for name in ("postgres", "nginx", "valkey", "redis", "worker", "beat", "run"):
        if name in command:
            return "backend" if name == "run" else name
    return process.name()


def _pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 2**20


def main() -> None:
    """Print the tables."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | min s | median s | max s |\n|---|---|---|---|")
    timings = {
        "python -c pass": median_of(HELP_RUNS, lambda: seconds([sys.executable, "-c", "pass"])),
        "mistudio-ops --help": median_of(HELP_RUNS, lambda: seconds([*OPS, "--help"])),
        "mistudio-ops deploy local, from nothing to healthy": median_of(DEPLOY_RUNS, timed_deploy),
    }
    for name, (low, middle, high) in timings.items():
        print(f"| {name} | {low:.3f} | {middle:.3f} | {high:.3f} |")
    print("\n| unit, idle | processes | PSS MiB |\n|---|---|---|")
    rows = idle_memory()
    for name, processes, pss in rows:
        print(f"| {name} | {processes} | {pss:.0f} |")
    print(f"| **all** | {sum(row[1] for row in rows)} | **{sum(row[2] for row in rows):.0f}** |")


if __name__ == "__main__":
    main()
