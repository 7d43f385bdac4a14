"""``mistudio-ops doctor``."""

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app()


@verb(
    app,
    schema="mistudio-ops/doctor/1",
    codes={ExitCode.OK: "a deploy can work", ExitCode.FAILED: "something prevents a deploy"},
)
def doctor(invocation: Invocation) -> ExitCode:
    """Look at this machine: what a deploy needs, and what is missing. Changes nothing."""
    from mistudio_ops.operations.doctor.examine import examine
    from mistudio_ops.presentation.doctor import doctor_result

    report = examine(invocation.environment())
    invocation.reporter.result(doctor_result(report))
    return ExitCode.OK if report.deployable else ExitCode.FAILED
