"""Waiting for an environment to become healthy, and watching one."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from mistudio_ops.domain.check import HealthReport, merge
from mistudio_ops.operations.health.facts import Facts
from mistudio_ops.operations.health.run import check_health
from mistudio_ops.presentation.reporter import Reporter

PAUSE_SECONDS = 0.5
#: A pass older than this is looked at again before the environment is called healthy.
STALE_SECONDS = 10.0


def wait_until_healthy(
    facts: Facts,
    reporter: Reporter,
    *,
    seconds: float,
    only: Iterable[str] | None = None,
    check: Callable[..., HealthReport] = check_health,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> HealthReport:
    """Check until everything passes or ``seconds`` are over, and return the last report.

    Only what failed is checked again, so that waiting does not itself load a small machine.
    """
    begun = clock()
    names = None if only is None else tuple(only)
    with reporter.step(f"wait until {facts.environment.name} is healthy", total=seconds) as step:
        report = check(facts, only=names)
        passed_since, shown = clock(), 0.0
        while not report.healthy and clock() - begun < seconds:
            step.detail(", ".join(one.name for one in report.failed))
            sleep(min(PAUSE_SECONDS, max(0.0, seconds - (clock() - begun))))
            step.advance(min(clock() - begun, seconds) - shown)
            shown = min(clock() - begun, seconds)
            again = check(facts, only=[one.name for one in report.failed])
            report = replace(report, checks=merge(report.checks, again.checks))
            if report.healthy and clock() - passed_since > STALE_SECONDS:
                report, passed_since = check(facts, only=names), clock()
        step.detail("")
        if not report.healthy:
            step.fail(", ".join(one.name for one in report.failed))
    return replace(report, took_ms=(clock() - begun) * 1000)
