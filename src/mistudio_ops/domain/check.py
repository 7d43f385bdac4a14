"""Checks of a running environment, as values: findings, reports, and what depends on what. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a check ended. A warning does not make an environment unhealthy."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw: evidence is what was measured, hint what to type or do next.

    ``latency_ms`` is for checks that know better than a stopwatch around them.
    """

    status: Status
    evidence: str
    hint: str | None = None
    latency_ms: float | None = None

    @classmethod
    def good(cls, evidence: str) -> "Finding":
        """Return a finding that is as it should be."""
        return cls(Status.OK, evidence)

    @classmethod
    def poor(cls, evidence: str, hint: str) -> "Finding":
        """Return a warning."""
        return cls(Status.WARN, evidence, hint)

    @classmethod
    def bad(cls, evidence: str, hint: str) -> "Finding":
        """Return a failure."""
        return cls(Status.FAIL, evidence, hint)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding with the name of its check and the time it took, in milliseconds."""

    name: str
    status: Status
    latency_ms: float
    evidence: str
    hint: str | None = None

    @property
    def ok(self) -> bool:
        """True unless it failed."""
        return self.status is not Status.FAIL


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All checks of one environment, in the order in which they are listed. ``took_ms`` is wall time."""

    environment: str
    url: str
    checks: tuple[CheckResult, ...]
    took_ms: float
    healthy: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "healthy", bool(self.checks) and all(check.ok for check in self.checks))

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def warned(self) -> tuple[CheckResult, ...]:
        """The checks that warn."""
        return tuple(check for check in self.checks if check.status is Status.WARN)


def blame_prerequisites(results: Sequence[CheckResult], needs: dict[str, tuple[str, ...]]) -> tuple[CheckResult, ...]:
    """Return the results with every failure that another one explains saying so. It stays a failure."""
    failed = {result.name for result in results if not result.ok}
    return tuple(_blamed(result, [need for need in needs.get(result.name, ()) if need in failed]) for result in results)


def _blamed(result: CheckResult, culprits: list[str]) -> CheckResult:
    if result.ok or not culprits:
        return result
    names = " and ".join(culprits)
    evidence = f"needs {names}, which {'fails' if len(culprits) == 1 else 'fail'}: {result.evidence}"
    return replace(result, evidence=evidence, hint=f"see {names} first")


def nagios_state(report: HealthReport) -> tuple[int, str]:
    """Return exit code and word of the Nagios plugin convention: 0 OK, 1 WARNING, 2 CRITICAL."""
    if not report.healthy:
        return 2, "CRITICAL"
    return (1, "WARNING") if report.warned else (0, "OK")


def nagios_line(report: HealthReport) -> str:
    """Return the one line of a Nagios plugin, with a latency per check as performance data."""
    _, word = nagios_state(report)
    troubles = [*report.failed, *report.warned]
    said = "; ".join(f"{check.name}: {check.evidence}" for check in troubles) or f"{len(report.checks)} checks pass"
    data = " ".join(f"{check.name}={check.latency_ms:.0f}ms" for check in report.checks)
    text = " ".join(f"MISTUDIO {word} - {report.environment}: {said}".split()).replace("|", "/")
    return f"{text} | {data}"


def merge(older: Sequence[CheckResult], newer: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Return ``older`` with the checks that were repeated replaced."""
    fresh: dict[str, Any] = {check.name: check for check in newer}
    return tuple(fresh.get(check.name, check) for check in older)
