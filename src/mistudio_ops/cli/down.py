"""``mistudio-ops down``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app()
_CODES = {
    ExitCode.OK: "stopped (and removed)",
    ExitCode.NOT_FOUND: "nothing is deployed there",
    ExitCode.LOCKED: "another operation works on this environment",
    ExitCode.VERIFICATION: "processes are left; nothing was removed",
    ExitCode.PRECONDITION: "the state directory holds what a deploy did not put there; nothing was changed",
}

PurgeOption = Annotated[bool, typer.Option("--purge", help="Remove all files too: database, checkpoints, secrets.")]
ConfirmOption = Annotated[str | None, typer.Option("--confirm", metavar="ENV", help="Confirm --purge by the name.")]


@verb(app, schema="mistudio-ops/down/1", codes=_CODES)
def down(invocation: Invocation, *, purge: PurgeOption = False, confirm: ConfirmOption = None) -> None:
    """Stop an environment: trainings checkpoint and are requeued, and no process is left. Data is kept."""
    from mistudio_ops.operations.down import down as stop
    from mistudio_ops.presentation.deployment import down_result

    environment = invocation.environment()
    if purge and confirm is None and invocation.interactive:
        question = f"Remove everything in {environment.state_dir}? Type the environment's name"
        confirm = typer.prompt(question, err=True)
    invocation.reporter.result(down_result(stop(environment, invocation.reporter, purge=purge, confirm=confirm)))
