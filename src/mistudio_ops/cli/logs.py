"""``mistudio-ops logs``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode, UsageError

app = verb_app()
SCHEMA = "mistudio-ops/logs/1"
_CODES = {ExitCode.OK: "done", ExitCode.NOT_FOUND: "nothing is deployed there, or there is no such unit"}

UnitsArgument = Annotated[list[str] | None, typer.Argument(metavar="[UNIT]...", help="As in backend-1; default: all.")]
LinesOption = Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines of each unit.")]
FollowOption = Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written, until Ctrl-C.")]


@verb(app, schema=SCHEMA, codes=_CODES, environment="option")
def logs(
    invocation: Invocation, units: UnitsArgument = None, *, lines: LinesOption = 50, follow: FollowOption = False
) -> None:
    """Show or follow the logs of units. `backend` means every backend."""
    from mistudio_ops.operations.logs import follow as follow_logs
    from mistudio_ops.operations.logs import last_lines, log_units
    from mistudio_ops.presentation.reporter import Result

    if follow and invocation.options.json:
        raise UsageError("--follow goes on for ever and does not fit --json", hint="leave one of them out")
    environment = invocation.environment()
    chosen = log_units(environment, tuple(units or ()))
    shown = last_lines(environment, chosen, lines)
    for unit, text in shown.items():
        for line in text:
            invocation.reporter.output(_labelled(unit, line, chosen))
    for unit, line in follow_logs(environment, chosen) if follow else ():
        invocation.reporter.output(_labelled(unit, line, chosen))
    invocation.reporter.result(Result(SCHEMA, shown))


def _labelled(unit: str, line: str, chosen: tuple[str, ...]) -> str:
    return line if len(chosen) == 1 else f"{unit:<{max(map(len, chosen))}} | {line}"
