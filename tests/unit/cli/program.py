"""``mistudio-ops`` with two more verbs, for tests of what happens to a running command.

Run as ``python -m tests.unit.cli.program``; the tests of the guard use its verbs in process.
"""

import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from mistudio_ops.cli import app as program
from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.lazy import Verb
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode, LockedError, PreconditionError
from mistudio_ops.presentation.blocks import Line
from mistudio_ops.presentation.reporter import Result

SECRET = "planted-in-an-exception"
app = verb_app()


class Ending(StrEnum):
    """How the verb ends."""

    OK = "ok"
    PARTIAL = "partial"
    LOCKED = "locked"
    CAUSED = "caused"
    BUG = "bug"
    BAD_PARAMETER = "bad-parameter"
    SLEEP = "sleep"
    FLOOD = "flood"
    SECRET = "secret"


@verb(app, schema="test/end/1", codes=(ExitCode.OK, ExitCode.PARTIAL, ExitCode.LOCKED))
def end(
    invocation: Invocation, *, how: Annotated[Ending, typer.Option()] = Ending.OK, seconds: float = 30.0
) -> ExitCode | None:
    """End in one way or another."""
    reporter = invocation.reporter
    with reporter.step("the work"):
        if how is Ending.SLEEP:
            sys.stderr.write("sleeping\n")
            sys.stderr.flush()
            time.sleep(seconds)
        _raise(invocation, how)
    while how is Ending.FLOOD:
        reporter.output("x" * 1000)
    reporter.result(Result("test/end/1", {"environment": invocation.environment_name}, (Line("the result"),)))
    return ExitCode.PARTIAL if how is Ending.PARTIAL else None


def _raise(invocation: Invocation, how: Ending) -> None:
    if how is Ending.LOCKED:
        raise LockedError("somebody else deploys", hint="wait for process 7")
    if how is Ending.CAUSED:
        raise PreconditionError("no room") from OSError("disk full")
    if how is Ending.BUG:
        raise ZeroDivisionError("a bug of ours")
    if how is Ending.BAD_PARAMETER:
        raise typer.BadParameter("not like this")
    if how is Ending.SECRET:
        invocation.reporter.hide(SECRET)
        raise RuntimeError(f"connecting with {SECRET} and postgresql://u:{SECRET}-2@h failed")


def register() -> None:
    """Add the verb to the program."""
    verbs = dict(program.RootGroup.verbs) | {"end": Verb("tests.unit.cli.program", "End.", hidden=True)}
    program.RootGroup.verbs = verbs


if __name__ == "__main__":
    register()
    program.main()
