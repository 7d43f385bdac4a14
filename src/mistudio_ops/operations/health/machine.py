"""Disk space and units."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mistudio_ops.domain.check import Finding, Status
from mistudio_ops.operations.health.facts import Facts

WARN_SHARE = 0.10
FAIL_SHARE = 0.02
FAIL_BYTES = 1024**3


class Usage(Protocol):
    """What ``shutil.disk_usage`` returns, in bytes."""

    @property
    def total(self) -> int:
        """Size of the file system."""

    @property
    def free(self) -> int:
        """What we may still write."""


def check_disk(facts: Facts, usage: Callable[[Path], Usage] = shutil.disk_usage) -> Finding:
    """Measure the free space where state and data are; one line where they share a file system."""
    places = {facts.environment.state_dir: "state", facts.environment.data: "data"}
    findings: dict[int, Finding] = {}
    for folder, what in places.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        findings.setdefault(existing.stat().st_dev, disk_finding(what, folder, usage(existing)))
    worst = max(findings.values(), key=lambda finding: list(Status).index(finding.status))
    return Finding(worst.status, "; ".join(finding.evidence for finding in findings.values()), worst.hint)


def disk_finding(what: str, folder: Path, usage: Usage) -> Finding:
    """Judge one file system."""
    share = usage.free / usage.total if usage.total else 0.0
    evidence = f"{what}: {usage.free / 1024**3:.1f} GiB free of {usage.total / 1024**3:.1f} ({share:.0%}) at {folder}"
    hint = f"du -xh --max-depth=2 {folder} | sort -h | tail; delete trainings and datasets that nobody needs"
    if usage.free < FAIL_BYTES or share < FAIL_SHARE:
        return Finding.bad(evidence, hint)
    return Finding.poor(evidence, hint) if share < WARN_SHARE else Finding.good(evidence)


def check_units(facts: Facts) -> Finding:
    """Ask the supervisor for the units and how often they were restarted."""
    units = facts.units() if facts.units else []
    again = f"mistudio-ops deploy {facts.environment.name}"
    if not units:
        return Finding.bad("the supervisor does not run, or knows no unit", again)
    down = [unit for unit in units if not unit.running]
    restarted = [f"{unit.name} {unit.restarts}" for unit in units if unit.restarts]
    note = f"; restarts: {', '.join(restarted)}" if restarted else ""
    if down:
        said = ", ".join(f"{unit.name} is {unit.state}" for unit in down)
        return Finding.bad(f"{len(units) - len(down)} of {len(units)} run; {said}{note}", facts.logs_hint(down[0].name))
    return Finding.good(f"all {len(units)} run{note}")
