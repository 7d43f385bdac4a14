"""Waiting and watching, with a clock that is moved by sleeping."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from mistudio_ops.domain.check import CheckResult, HealthReport, Status
from mistudio_ops.domain.environment import Environment
from mistudio_ops.operations.health.facts import Facts
from mistudio_ops.operations.health.wait import wait_until_healthy
from mistudio_ops.operations.health.watch import watch_health
from mistudio_ops.presentation.recording import RecordingReporter

FACTS = Facts(Environment("local", Path("/s")), "http://x", {}, {})


@dataclass
class Bench:
    """A clock, and checks that pass from a given second on."""

    passes_from: dict[str, float]
    now: float = 0.0
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def check(self, facts: Facts, *, only: Iterable[str] | None = None) -> HealthReport:
        names = tuple(self.passes_from if only is None else only)
        self.asked.append(names)
        self.now += 0.1
        results = tuple(CheckResult(name, self._status(name), 1.0, "evidence") for name in names)
        return HealthReport(facts.environment.name, facts.proxy_url, results, 100.0)

    def _status(self, name: str) -> Status:
        return Status.OK if self.now >= self.passes_from[name] else Status.FAIL


def wait(bench: Bench, reporter: RecordingReporter, seconds: float) -> HealthReport:
    return wait_until_healthy(FACTS, reporter, seconds=seconds, check=bench.check, clock=bench.clock, sleep=bench.sleep)


def test_only_what_failed_is_checked_again() -> None:
    bench, reporter = Bench({"a": 0.0, "b": 1.0, "c": 2.0}), RecordingReporter()
    assert wait(bench, reporter, 60).healthy
    assert bench.asked[:3] == [("a", "b", "c"), ("b", "c"), ("b", "c")]
    assert bench.asked[-1] == ("c",)
    assert bench.now < 3
    assert reporter.steps == [("wait until local is healthy", "ok")]


def test_what_passed_long_ago_is_looked_at_again() -> None:
    bench = Bench({"a": 0.0, "b": 20.0})
    report = wait(bench, RecordingReporter(), 60)
    assert report.healthy
    assert bench.asked[-1] == ("a", "b")


def test_it_gives_up_in_time_and_says_what_failed() -> None:
    bench = Bench({"a": 0.0, "b": 1e9})
    reporter = RecordingReporter()
    report = wait(bench, reporter, 5)
    assert reporter.steps == [("wait until local is healthy", "failed")]
    assert report.took_ms == pytest.approx(bench.now * 1000)
    assert [check.name for check in report.checks] == ["a", "b"]
    assert [check.name for check in report.failed] == ["b"]
    assert 5 <= bench.now < 5.6


def test_no_time_means_one_look() -> None:
    bench = Bench({"a": 1e9})
    assert not wait(bench, RecordingReporter(), 0).healthy
    assert len(bench.asked) == 1


def test_watching_tells_changes_only() -> None:
    bench = Bench({"a": 0.0, "b": 35.0})
    now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731
    seen = list(islice(watch_health(FACTS, every=10, check=bench.check, sleep=bench.sleep, now=now), 2))
    assert [report.healthy for report, _ in seen] == [False, True]
    assert len(bench.asked) == 5
