"""``mistudio-ops deploy``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app()
_CODES = {
    ExitCode.OK: "deployed, or nothing to change",
    ExitCode.FAILED: "failed; a first deploy stops what it started and keeps the data",
    ExitCode.LOCKED: "another operation works on this environment",
    ExitCode.VERIFICATION: "what was deployed does not become healthy",
    ExitCode.PRECONDITION: "the machine lacks something (a port, disk, a program); nothing was changed",
    ExitCode.PREVIOUS_SERVES: "failed, and the previous release serves",
}

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]


@verb(app, schema="mistudio-ops/deploy/1", codes=_CODES)
def deploy(invocation: Invocation, *, dry_run: DryRunOption = False) -> None:
    """Bring an environment to the code that mistudio-ops is installed from: start, migrate, restart, verify.

    Doing it again changes nothing, but starts what is down. A deploy that was killed is taken up by the next one.
    """
    from mistudio_ops.operations.deploy import deploy as run
    from mistudio_ops.presentation.deployment import deploy_result

    invocation.reporter.result(deploy_result(run(invocation.environment(), invocation.reporter, dry_run=dry_run)))
