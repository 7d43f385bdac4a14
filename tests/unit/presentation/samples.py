"""A health report with one of everything, and a way to run reporters on text streams."""

import io

from mistudio_ops.domain.check import CheckResult, HealthReport, Status

REPORT = HealthReport(
    environment="local",
    url="http://127.0.0.1:8700",
    checks=(
        CheckResult("api", Status.OK, 12.4, "4 of 4 healthy (proxy, backend-1, backend-2, backend-3), release r0001"),
        CheckResult("redis", Status.FAIL, 3.1, "connection refused", "mistudio-ops logs redis -e local"),
        CheckResult("worker", Status.FAIL, 801.0, "needs redis, which fails: no answer", "see redis first"),
        CheckResult("disk", Status.WARN, 0.2, "state: 9.0 GiB free of 100.0 (9%)", "delete something"),
    ),
    took_ms=812.0,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True
