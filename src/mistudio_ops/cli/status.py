"""``mistudio-ops status``."""

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app()
_CODES = {
    ExitCode.OK: "every unit runs",
    ExitCode.FAILED: "a unit does not run",
    ExitCode.NOT_FOUND: "nothing is deployed there",
}


@verb(app, schema="mistudio-ops/status/1", codes=_CODES)
def status(invocation: Invocation) -> ExitCode:
    """Show the units: what runs, since when, how often it was restarted, how much memory it takes."""
    from mistudio_ops.operations.status import status as look
    from mistudio_ops.presentation.unit_status import status_result

    result = status_result(look(invocation.environment()))
    invocation.reporter.result(result)
    return ExitCode.OK if result.ok else ExitCode.FAILED
