"""Reports, blame and the Nagios line: pure decisions."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from mistudio_ops.domain.check import (
    CheckResult,
    HealthReport,
    Status,
    blame_prerequisites,
    merge,
    nagios_line,
    nagios_state,
)
from mistudio_ops.operations.health.database import months_ahead
from mistudio_ops.operations.health.machine import disk_finding

GOOD = CheckResult("redis", Status.OK, 1.0, "PING")
WARN = CheckResult("disk", Status.WARN, 2.0, "9 % free", "delete")
BAD = CheckResult("postgres", Status.FAIL, 3.4, "refused | gone\nnow", "start it")
WORKER = CheckResult("worker", Status.FAIL, 4.0, "silent", "read the log")
GIB = 1024**3


def report(*checks: CheckResult) -> HealthReport:
    return HealthReport("local", "http://x", checks, 5.0)


@pytest.mark.parametrize(
    ("checks", "healthy", "state"),
    [
        ((GOOD,), True, (0, "OK")),
        ((GOOD, WARN), True, (1, "WARNING")),
        ((GOOD, WARN, BAD), False, (2, "CRITICAL")),
        ((), False, (2, "CRITICAL")),
    ],
)
def test_verdicts(checks: tuple[CheckResult, ...], healthy: bool, state: tuple[int, str]) -> None:
    assert report(*checks).healthy is healthy
    assert nagios_state(report(*checks)) == state


def test_the_nagios_line_is_one_line_with_one_bar() -> None:
    assert nagios_line(report(GOOD, WARN, BAD)) == (
        "MISTUDIO CRITICAL - local: postgres: refused / gone now; disk: 9 % free | redis=1ms disk=2ms postgres=3ms"
    )
    assert nagios_line(report(GOOD)) == "MISTUDIO OK - local: 1 checks pass | redis=1ms"


def test_a_failure_that_another_explains_says_so_and_stays_one() -> None:
    needs = {"worker": ("redis", "postgres")}
    blamed = blame_prerequisites((GOOD, BAD, WORKER), needs)
    assert blamed[2] == replace(WORKER, evidence="needs postgres, which fails: silent", hint="see postgres first")
    both = blame_prerequisites((replace(GOOD, status=Status.FAIL), BAD, WORKER), needs)
    assert both[2].evidence == "needs redis and postgres, which fail: silent"
    assert blame_prerequisites((GOOD, WORKER), needs) == (GOOD, WORKER)
    passing = replace(WORKER, status=Status.OK)
    assert blame_prerequisites((BAD, passing), needs) == (BAD, passing)


def test_merging_replaces_what_was_repeated() -> None:
    again = replace(BAD, status=Status.OK)
    assert merge((GOOD, BAD), (again,)) == (GOOD, again)


def bound(start: str, end: str) -> str:
    return f"FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00')"


@pytest.mark.parametrize(
    ("bounds", "ahead"),
    [
        ([], None),
        ([bound("2026-10-01", "2026-11-01")], None),
        ([bound("2026-11-01", "2026-12-01")], 0),
        ([bound("2026-12-01", "2027-01-01"), bound("2026-11-01", "2026-12-01")], 1),
        ([bound("2026-11-01", "2026-12-01"), bound("2027-01-01", "2027-02-01")], 0),
        ([bound("2026-01-01", "2027-03-01")], 3),
        (["DEFAULT", bound("2026-11-01", "2027-01-01")], 1),
    ],
)
def test_months_ahead_counts_without_gaps_and_over_new_year(bounds: list[str], ahead: int | None) -> None:
    assert months_ahead(bounds, datetime(2026, 11, 23, tzinfo=UTC)) == ahead


@pytest.mark.parametrize(
    ("free", "total", "status"),
    [
        (50 * GIB, 100 * GIB, Status.OK),
        (10 * GIB, 100 * GIB, Status.OK),
        (9.9 * GIB, 100 * GIB, Status.WARN),
        (1.9 * GIB, 100 * GIB, Status.FAIL),
        (0.9 * GIB, 2 * GIB, Status.FAIL),
        (0, 0, Status.FAIL),
    ],
)
def test_disk_limits(free: float, total: float, status: Status) -> None:
    finding = disk_finding("state", Path("/s"), SimpleNamespace(total=int(total), free=int(free)))
    assert finding.status is status
    assert "/s" in finding.evidence
    assert (finding.hint is None) is (status is Status.OK)
