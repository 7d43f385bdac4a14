"""Remembering that a dependency is down: one log line per outage, a pause between attempts, counters for health."""

import time
from collections.abc import Callable

import structlog

Clock = Callable[[], float]
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0


class Outage:
    """State of one connection. ``failures`` counts what failed or was not even tried since the process started."""

    def __init__(self, what: str, *, clock: Clock = time.monotonic) -> None:
        self._log = structlog.stdlib.get_logger(__name__)
        self._what = what
        self._clock = clock
        self._began: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._resume_at = 0.0
        self._failures_before = 0
        self.failures = 0

    @property
    def healthy(self) -> bool:
        """True when the last attempt succeeded, or none was made yet."""
        return self._began is None

    @property
    def pausing(self) -> bool:
        """True when it is too early to try again: a dead server must not slow down every caller."""
        return self._began is not None and self._clock() < self._resume_at

    def failed(self, error: BaseException) -> None:
        """Note a failed attempt. The first of an outage is logged."""
        self.failures += 1
        now = self._clock()
        self._resume_at = now + self._pause
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        if self._began is None:
            self._began = now
            self._failures_before = self.failures - 1
            self._log.error("outage_began", what=self._what, error=f"{type(error).__name__}: {error}")

    def skipped(self) -> None:
        """Note something that was not tried because of the outage."""
        self.failures += 1

    def succeeded(self) -> None:
        """Note a success. The first after an outage is logged with what the outage cost."""
        if self._began is not None:
            seconds, lost = self._clock() - self._began, self.failures - self._failures_before
            self._log.warning("outage_ended", what=self._what, seconds=round(seconds, 2), failures=lost)
        self._began, self._pause, self._resume_at = None, FIRST_PAUSE_SECONDS, 0.0
