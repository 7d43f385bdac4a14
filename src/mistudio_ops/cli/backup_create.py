"""``mistudio-ops backup create``, which is also what ``mistudio-ops backup`` does."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from mistudio_ops.cli.backup_schedule import run_from_schedule
from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode

_CODES = {
    ExitCode.OK: "made, and read back",
    ExitCode.FAILED: "not made; nothing of it is left (with --scheduled: or not proven)",
    ExitCode.PARTIAL: "only with --scheduled: made and proven, but a copy or the pruning failed",
    ExitCode.LOCKED: "another backup, a migration or the archiver works here",
    ExitCode.VERIFICATION: "made, and it is bad",
    ExitCode.PRECONDITION: "no room, no database, or no client programs of its version; nothing was changed",
}


class Part(StrEnum):
    """What can be backed up beside the database."""

    CHECKPOINTS = "checkpoints"


class MadeFor(StrEnum):
    """Why it is made; other commands say so."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"
    PRE_RESTORE = "pre-restore"
    PRE_MIGRATE = "pre-migrate"


IncludeOption = Annotated[
    list[Part] | None,
    typer.Option(
        "--include", metavar="PART", help="Back up checkpoints too; default: backup.include of mistudio.toml."
    ),
]
KindOption = Annotated[MadeFor, typer.Option("--kind", hidden=True)]
WaitOption = Annotated[
    float, typer.Option("--lock-wait", metavar="S", min=0, help="Wait so many seconds for others that work here.")
]
ScheduledOption = Annotated[
    bool,
    typer.Option("--scheduled", help="Do what the schedule does: back up, prove, copy, prune; quiet if all is well."),
]
FileOption = Annotated[
    Path | None, typer.Option("--environment-file", metavar="FILE", help="Variables that the schedule wrote down.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup/1", codes=_CODES, environment="option")
    def create(
        invocation: Invocation,
        *,
        include: IncludeOption = None,
        kind: KindOption = MadeFor.MANUAL,
        lock_wait: WaitOption = 0.0,
        scheduled: ScheduledOption = False,
        environment_file: FileOption = None,
    ) -> ExitCode:
        """Make a backup of the database, the configuration without secrets, and (--include) checkpoints.

        Rows are counted in the dump's own snapshot; nothing half-made ever has a backup's name.
        """
        from mistudio_ops.operations.backup.create import create as run
        from mistudio_ops.presentation.backup_create import create_result

        if scheduled:
            return run_from_schedule(invocation, environment_file)
        workplace = invocation.workplace()
        parts: tuple[Literal["checkpoints"], ...] | None = ("checkpoints",) if include else None
        stored = run(workplace, kind=kind.value, include=parts, lock_wait=lock_wait)
        invocation.reporter.result(create_result(stored, workplace.directory.path(stored.id)))
        return ExitCode.OK
