"""``mistudio-ops backup prune``."""

from typing import TYPE_CHECKING, Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode

if TYPE_CHECKING:
    from mistudio_ops.operations.backup.workplace import Workplace

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
AtOption = Annotated[
    str | None, typer.Option("--at", metavar="URL", help="Prune the copies at a destination instead of those here.")
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
        at: AtOption = None,
        lock_wait: WaitOption = 0.0,
    ) -> ExitCode:
        """Remove the backups that the policy does not keep. It counts days that have a good backup, never file age.

        Never removed: the newest good one, the newest proven by a restore, pinned ones, recent ones made before a
        restore or a migration. What a removal counts on is read first.
        """
        kept = {"daily": keep_daily, "weekly": keep_weekly, "monthly": keep_monthly, "pre_days": keep_pre_days}
        workplace = invocation.workplace(**{f"backup.keep_{name}": count for name, count in kept.items()})
        if at is not None:
            return _prune_copies(invocation, workplace, at, dry_run=dry_run, lock_wait=lock_wait)
        return _prune_here(invocation, workplace, dry_run=dry_run, lock_wait=lock_wait)


def _prune_here(invocation: Invocation, workplace: "Workplace", *, dry_run: bool, lock_wait: float) -> ExitCode:
    from mistudio_ops.operations.backup.prune import prune
    from mistudio_ops.presentation.backup_prune import prune_result

    done = prune(workplace, dry_run=dry_run, lock_wait=lock_wait)
    invocation.reporter.result(prune_result(done))
    return ExitCode.PARTIAL if done.failed else ExitCode.OK


def _prune_copies(
    invocation: Invocation, workplace: "Workplace", at: str, *, dry_run: bool, lock_wait: float
) -> ExitCode:
    from mistudio_ops.operations.backup.prune_remote import prune_remote
    from mistudio_ops.presentation.backup_copy import prune_remote_result

    done = prune_remote(workplace, at, dry_run, lock_wait=lock_wait)
    invocation.reporter.result(prune_remote_result(done, workplace.now()))
    return ExitCode.OK
