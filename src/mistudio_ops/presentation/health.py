"""How a health report looks."""

from mistudio_ops.domain.check import CheckResult, HealthReport, Status
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table, Tone
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/health/1"
_TONES: dict[Status, Tone] = {Status.OK: "good", Status.WARN: "warn", Status.FAIL: "bad"}


def health_result(report: HealthReport) -> Result:
    """Return the checks as a table, the hints of those that do not pass, and a verdict."""
    rows = [
        (Cell(check.status.value, _TONES[check.status]), check.name, f"{check.latency_ms:.0f}", check.evidence)
        for check in report.checks
    ]
    table = Table(("status", "check", "ms", "evidence"), rows, right=frozenset({"ms"}))
    return Result(SCHEMA, report, (table, *_hints(report), _verdict(report)), ok=report.healthy)


def summary_line(report: HealthReport, when: str) -> str:
    """Return one line for ``--watch``."""
    said = "; ".join(f"{check.name}: {check.evidence}" for check in (*report.failed, *report.warned))
    return f"{when} {'healthy' if report.healthy else 'UNHEALTHY'} {_passed(report)}{f' {said}' if said else ''}"


def _hints(report: HealthReport) -> list[Block]:
    return [Line(f"{check.name}: {check.hint}", "dim") for check in report.checks if _needs_hint(check)]


def _needs_hint(check: CheckResult) -> bool:
    return check.status is not Status.OK and check.hint is not None


def _verdict(report: HealthReport) -> Line:
    word = "healthy" if report.healthy else "unhealthy"
    text = f"{report.environment} is {word}: {_passed(report)} checks pass, {report.took_ms / 1000:.1f} s, {report.url}"
    return Line(text, "good" if report.healthy else "bad")


def _passed(report: HealthReport) -> str:
    return f"{sum(check.ok for check in report.checks)}/{len(report.checks)}"
