"""How a check of the backups looks."""

from dataclasses import asdict

from mistudio_ops.domain.backup_check import BackupReport, nagios
from mistudio_ops.domain.check import Status
from mistudio_ops.presentation.blocks import Cell, Line, Raw, Table, Tone
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/backup-check/1"
_TONES: dict[Status, Tone] = {Status.OK: "good", Status.WARN: "warn", Status.FAIL: "bad"}


def check_result(report: BackupReport) -> Result:
    """Return the findings as a table, the hints of those that do not pass, and a verdict."""
    rows = [(Cell(one.status.value, _TONES[one.status]), one.name, one.evidence) for one in report.findings]
    hints = [Line(f"{one.name}: {one.hint}", "dim") for one in report.troubles if one.hint]
    word = "are as they should be" if report.ok else "need attention"
    verdict = Line(f"the backups of {report.environment} {word} ({report.directory})", "good" if report.ok else "bad")
    return Result(SCHEMA, _data(report), (Table(("status", "check", "evidence"), rows), *hints, verdict), ok=report.ok)


def nagios_result(report: BackupReport) -> Result:
    """Return the one line of a Nagios plugin."""
    return Result(SCHEMA, _data(report), (Raw(nagios(report)[1]),), ok=report.ok)


def _data(report: BackupReport) -> dict[str, object]:
    return asdict(report) | {"ok": report.ok}
