"""``mistudio-ops backup prune``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode

_CODES = {
    ExitCode.OK: "what the policy does not keep is gone",
    ExitCode.PARTIAL: "some could not be removed",
    ExitCode.LOCKED: "another command writes there",
}

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done to each, and why; do nothing.")]
DailyOption = Annotated[int | None, typer.Option("--keep-daily", metavar="N", min=1, help="Days with a good backup.")]
WeeklyOption = Annotated[int | None, typer.Option("--keep-weekly", metavar="N", min=0, help="Weeks, likewise.")]
MonthlyOption = Annotated[int | None, typer.Option("--keep-monthly", metavar="N", min=0, help="Months, likewise.")]
PreOption = Annotated[
    int | None,
    typer.Option("--keep-pre-days", metavar="N", min=0, help="Days that copies before a restore or migration stay."),
]
WaitOption = Annotated[
    float, typer.Option("--lock-wait", metavar="S", min=0, help="Wait so many seconds for others that work here.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup-prune/1", codes=_CODES, environment="option")
    def prune(
        invocation: Invocation,
        *,
        dry_run: DryRunOption = False,
        keep_daily: DailyOption = None,
        keep_weekly: WeeklyOption = None,
        keep_monthly: MonthlyOption = None,
        keep_pre_days: PreOption = None,
        lock_wait: WaitOption = 0.0,
    ) -> ExitCode:
        """Remove the backups that the policy does not keep. It counts days that have a good backup, never file age.

        Never removed: the newest good one, the newest proven by a restore, pinned ones, recent ones made before a
        restore or a migration. What a removal counts on is read first.
        """
        from mistudio_ops.operations.backup.prune import prune as run
        from mistudio_ops.presentation.backup_prune import prune_result

        kept = {"daily": keep_daily, "weekly": keep_weekly, "monthly": keep_monthly, "pre_days": keep_pre_days}
        workplace = invocation.workplace(**{f"backup.keep_{name}": count for name, count in kept.items()})
        done = run(workplace, dry_run=dry_run, lock_wait=lock_wait)
        invocation.reporter.result(prune_result(done))
        return ExitCode.PARTIAL if done.failed else ExitCode.OK
