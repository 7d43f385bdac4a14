"""``mistudio-ops backup schedule install|remove|show``, and the run that the schedule starts."""

import os
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode, OpsError

_CODES = (ExitCode.OK, ExitCode.NOT_FOUND, ExitCode.PRECONDITION)


class Action(StrEnum):
    """What is done with the schedule."""

    INSTALL = "install"
    REMOVE = "remove"
    SHOW = "show"


ActionArgument = Annotated[Action, typer.Argument(help="install, remove or show.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup-schedule/1", codes=_CODES, environment="option")
    def schedule(invocation: Invocation, *, action: ActionArgument = Action.SHOW) -> None:
        """Let a backup be made every day at backup.at (03:00): a systemd timer, or a crontab line where there is none.

        Flags and variables that hold now are written down for it, secrets too, in a file that only you can read.
        """
        from mistudio_ops.operations.backup import schedule as operation
        from mistudio_ops.presentation.backup_schedule import removed_result, schedule_result

        resolved, workplace = invocation.resolve(), invocation.workplace()
        scheduler = operation.scheduler_here(workplace)
        if action is Action.REMOVE:
            invocation.reporter.result(removed_result(operation.remove(workplace, scheduler)))
        elif action is Action.INSTALL:
            invocation.reporter.result(schedule_result(operation.install(workplace, resolved, scheduler)))
        else:
            invocation.reporter.result(schedule_result(operation.show(workplace, scheduler)))


def run_from_schedule(invocation: Invocation, environment_file: Path | None) -> ExitCode:
    """Do a night's work. Where nobody watches, nothing is said unless something fails."""
    from mistudio_ops.operations.backup.scheduled import run_scheduled
    from mistudio_ops.presentation.backup_schedule import run_result
    from mistudio_ops.presentation.deferred import DeferredReporter

    deferred = DeferredReporter(invocation.reporter)
    invocation = replace(_with_variables(invocation, environment_file), reporter=deferred)
    if _watched(invocation):
        deferred.speak()
    try:
        run = run_scheduled(invocation.workplace(), mask=deferred.mask)
    except OpsError:
        deferred.speak()
        raise
    if run.failures or invocation.options.json:
        deferred.speak()
    deferred.result(run_result(run))
    return run.exit_code


def _with_variables(invocation: Invocation, file: Path | None) -> Invocation:
    if file is None:
        return invocation
    from mistudio_ops.drivers.environment_file import read_variables

    variables = read_variables(file)
    os.environ.update(variables)  # libraries and client programs read it, not us
    return replace(invocation, environ={**invocation.environ, **variables})


def _watched(invocation: Invocation) -> bool:
    return invocation.options.verbose or sys.stdout.isatty() or sys.stderr.isatty()
