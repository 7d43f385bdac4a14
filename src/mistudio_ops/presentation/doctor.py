"""How ``doctor`` looks."""

from mistudio_ops.domain.check import Status
from mistudio_ops.domain.diagnosis import DoctorReport
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table, Tone
from mistudio_ops.presentation.reporter import Result

_TONES: dict[Status, Tone] = {Status.OK: "good", Status.WARN: "warn", Status.FAIL: "bad"}


def doctor_result(report: DoctorReport) -> Result:
    """Return the findings as a table, the hints, and whether a deploy would work."""
    rows = [(Cell(one.status.value, _TONES[one.status]), one.name, one.evidence) for one in report.diagnoses]
    hints = [Line(f"{one.name}: {one.hint}", "dim") for one in report.diagnoses if one.hint]
    verdict = (
        Line(f"this machine is ready: mistudio-ops deploy {report.environment}", "good")
        if report.deployable
        else Line(f"a deploy of {report.environment} would fail here", "bad")
    )
    blocks: tuple[Block, ...] = (Table(("status", "what", "evidence"), rows), *hints, verdict)
    return Result("mistudio-ops/doctor/1", report, blocks, ok=report.deployable)
