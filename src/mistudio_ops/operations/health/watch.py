"""Watching an environment: a report whenever what it says has changed."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from mistudio_ops.domain.check import HealthReport
from mistudio_ops.operations.health.facts import Facts
from mistudio_ops.operations.health.run import check_health


def watch_health(
    facts: Facts,
    *,
    every: float,
    only: Iterable[str] | None = None,
    check: Callable[..., HealthReport] = check_health,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
) -> Iterator[tuple[HealthReport, datetime]]:
    """Check for ever, ``every`` so many seconds; yield the first report, and each whose verdicts differ from before."""
    names = None if only is None else tuple(only)
    before: tuple[tuple[str, str], ...] | None = None
    while True:
        report = check(facts, only=names)
        verdicts = tuple((one.name, one.status.value) for one in report.checks)
        if verdicts != before:
            yield report, now()
            before = verdicts
        sleep(every)
