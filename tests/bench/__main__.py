"""``make bench``: time to healthy, time of --help, and the memory of the idle studio, as Markdown tables.

Every figure is a median over several runs beside a bare Python start of the same minute, so that it can be compared
between machines.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tests.support.studio import deployed_studio

HELP_RUNS = 15
DEPLOY_RUNS = 3
SETTLE_SECONDS = 15.0
MIB = 1 << 20
OPS = [sys.executable, "-m", "mistudio_ops"]


def seconds(argv: list[str]) -> float:
    """Run ``argv`` and return its wall time; its failure is ours."""
    started = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} exited {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return elapsed


def median_of(runs: int, measure: Callable[[], float]) -> tuple[float, float, float]:
    """Return minimum, median and maximum of ``runs`` measurements."""
    values = sorted(measure() for _ in range(runs))
    return values[0], statistics.median(values), values[-1]


def timed_deploy() -> float:
    """Deploy from nothing until healthy, and take it down again; return the deploy's seconds."""
    began = time.perf_counter()
    with deployed_studio() as studio:
        assert studio.url
        return time.perf_counter() - began


def idle_memory() -> list[tuple[str, float]]:
    """Return (unit, PSS in MiB) of an idle studio; PSS shares a page among the processes that map it."""
    with deployed_studio() as studio:
        time.sleep(SETTLE_SECONDS)
        found = studio.json("status")
    units = [(unit["name"], unit["memory"] / MIB) for unit in found["units"]]
    supervisor = found["memory"] / MIB - sum(memory for _, memory in units)
    return [*units, ("supervisord", supervisor), ("**all**", found["memory"] / MIB)]


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
    print("\n| unit, idle | PSS MiB |\n|---|---|")
    for name, memory in idle_memory():
        print(f"| {name} | {memory:.0f} |")


if __name__ == "__main__":
    main()
