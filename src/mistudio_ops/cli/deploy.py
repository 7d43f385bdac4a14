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
    ExitCode.LOCKED: "another operation works on this environment or its database; what served before serves",
    ExitCode.VERIFICATION: "what was deployed does not become healthy",
    ExitCode.PRECONDITION: "the machine lacks something (a port, disk, a program); nothing was changed",
    ExitCode.PREVIOUS_SERVES: "failed, and the previous release serves",
}

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
SkipBackupOption = Annotated[
    bool, typer.Option("--skip-backup", help="Migrate a database that holds data without a proven backup.")
]
LockWaitOption = Annotated[
    float, typer.Option("--lock-wait", metavar="SECONDS", min=0, max=86_400, help="Wait so long for a backup to end.")
]


@verb(app, schema="mistudio-ops/deploy/1", codes=_CODES)
def deploy(
    invocation: Invocation,
    *,
    dry_run: DryRunOption = False,
    skip_backup: SkipBackupOption = False,
    lock_wait: LockWaitOption = 600.0,
) -> None:
    """Bring an environment to the code that mistudio-ops is installed from: start, migrate, restart, verify.

    Doing it again changes nothing, but starts what is down. A deploy that was killed is taken up by the next one.
    A database with data is backed up before it is migrated, and the backup proven by a restore.
    """
    from mistudio_ops.operations.deploy import MigrationOptions
    from mistudio_ops.operations.deploy import deploy as run
    from mistudio_ops.presentation.deployment import deploy_result

    options = MigrationOptions(lock_wait, skip_backup, invocation.environ)
    environment, reporter = invocation.environment(), invocation.reporter
    reporter.result(deploy_result(run(environment, reporter, dry_run=dry_run, migration=options)))
