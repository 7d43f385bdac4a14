"""``mistudio-ops restore``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from mistudio_ops.domain.restore_plan import Loss
    from mistudio_ops.operations.restore.restore import Options

app = verb_app()
_CODES = {
    ExitCode.OK: "restored; the database from before is kept",
    ExitCode.FAILED: "failed; the lab runs on the database from before",
    ExitCode.USAGE: "wrong usage, or what would be lost was not confirmed; nothing was changed",
    ExitCode.NOT_FOUND: "no such backup, or nothing to resume, abort, undo or finalize",
    ExitCode.LOCKED: "a deploy, a backup, a migration or the archiver works here",
    ExitCode.VERIFICATION: "the backup is bad, or the key does not open it; the live database was not touched",
    ExitCode.PRECONDITION: "version, disk, rights or programs are missing, or an interrupted restore is in the way",
}
#: Words that stand in the place of a backup.
FINALIZE, STATUS = "finalize", "status"

BackupArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="BACKUP", help="Its id, the start of one, latest or latest-verified; or the word finalize or status."
    ),
]
ConfirmOption = Annotated[
    str | None, typer.Option("--confirm", metavar="DB", help="The database's name: what came after the backup is lost.")
]
_JOBS_HELP = "Load so many tables at a time; default: half the processors, at most 4."
JobsOption = Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, max=16, help=_JOBS_HELP)]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check all, say what would be lost, change nothing.")]
SkipOption = Annotated[bool, typer.Option("--skip-safety-backup", help="Make no backup of the database as it is now.")]
WaitOption = Annotated[
    float, typer.Option("--lock-wait", metavar="S", min=0, help="Wait so many seconds for others that work here.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the restore that was cut off.")]
AbortOption = Annotated[bool, typer.Option("--abort", help="Go back to the database from before it.")]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", metavar="T", help="Bring back the rows of this table only; repeatable.")
]
WhereOption = Annotated[str | None, typer.Option("--where", metavar="SQL", help="Only rows that fit; one --table.")]
TrainingOption = Annotated[
    str | None, typer.Option("--training", metavar="ID", help="Bring back one training with all that belongs to it.")
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="With --table or --training: rows that are there become as in the backup.")
]
ToTimeOption = Annotated[
    str | None,
    typer.Option(
        "--to-time", metavar="TIME", help="Go back to a moment, as in '2026-11-23 02:00:00+00'; needs pgBackRest."
    ),
]
UndoOption = Annotated[bool, typer.Option("--undo", help="Take the latest restore back; the restored one is kept.")]


@verb(app, schema="mistudio-ops/restore/1", codes=_CODES, environment="option")
def restore(
    invocation: Invocation,
    backup: BackupArgument = None,
    *,
    confirm: ConfirmOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    skip_safety_backup: SkipOption = False,
    lock_wait: WaitOption = 0.0,
    resume: ResumeOption = False,
    abort: AbortOption = False,
    undo: UndoOption = False,
    table: TableOption = None,
    where: WhereOption = None,
    training: TrainingOption = None,
    replace: ReplaceOption = False,
    to_time: ToTimeOption = None,
) -> None:
    """Put a backup in the place of the live database, which is kept under another name until `restore finalize`.

    The backup is loaded beside it while the lab runs; then the names change in one transaction, within seconds.
    Whatever fails, or is killed, the lab runs on one whole database: --resume goes on, --abort goes back.
    With --table or --training only those rows come back, into the live database.
    """
    from mistudio_ops.operations.restore.restore import Options

    options = Options(confirm, jobs, dry_run, skip_safety_backup, lock_wait)
    selection = Selection(tuple(table or ()), where, training, replace)
    if selection == Selection():
        _action(backup, to_time, resume=resume, abort=abort, undo=undo)(invocation, options)
    else:
        _check_selection(backup, resume or abort or undo or to_time is not None)
        _restore_rows(invocation, str(backup), selection, options)


Action = Callable[[Invocation, "Options"], None]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are to come back, where not everything is."""

    tables: tuple[str, ...] = ()
    where: str | None = None
    training: str | None = None
    replace: bool = False


def _check_selection(backup: str | None, other: bool) -> None:
    if other or backup in {None, FINALIZE, STATUS}:
        raise UsageError(
            "--table, --where, --training and --replace need a backup, and nothing else",
            hint="mistudio-ops restore latest --table training_metrics",
        )


def _restore_rows(invocation: Invocation, backup: str, selection: Selection, options: "Options") -> None:
    from mistudio_ops.operations.backup.loading import usable_jobs
    from mistudio_ops.operations.restore.facts import find_backup
    from mistudio_ops.operations.restore.tables import restore_tables
    from mistudio_ops.presentation.restore_tables import tables_result

    workplace = invocation.workplace()
    done = restore_tables(
        workplace, find_backup(workplace, backup), selection.tables, where=selection.where,
        training=selection.training, replace=selection.replace, dry_run=options.dry_run, jobs=usable_jobs(options.jobs),
        lock_wait=options.lock_wait,
    )  # fmt: skip
    invocation.reporter.result(tables_result(done))


def _action(backup: str | None, to_time: str | None, *, resume: bool, abort: bool, undo: bool) -> Action:
    """Return what to do.

    Raises:
        UsageError: nothing, or more than one thing, was asked for.
    """
    flags: dict[str, tuple[bool, Action]] = {
        "--resume": (resume, _resume),
        "--abort": (abort, _abort),
        "--undo": (undo, _undo),
        "--to-time": (to_time is not None, lambda invocation, options: _to_time(invocation, str(to_time), options)),
    }
    asked = [name for name, (given, _) in flags.items() if given]
    if len(asked) + (backup is not None) != 1:
        said = " and ".join([*asked, *([backup] if backup else [])])
        raise UsageError(
            f"{said} do not go together" if said else "which backup?",
            hint="mistudio-ops backup list shows them; mistudio-ops restore latest takes the newest good one",
        )
    if asked:
        return flags[asked[0]][1]
    words: dict[str | None, Action] = {FINALIZE: _finalize, STATUS: _status}
    return words.get(backup) or (lambda invocation, options: _restore(invocation, str(backup), options))


def _restore(invocation: Invocation, backup: str, options: "Options") -> None:
    from mistudio_ops.operations.restore.restore import NotConfirmedError
    from mistudio_ops.operations.restore.restore import restore as run
    from mistudio_ops.presentation.restore import restore_result

    ask = _ask(invocation) if invocation.interactive else None
    try:
        invocation.reporter.result(restore_result(run(invocation.workplace(), backup, options, ask=ask)))
    except NotConfirmedError as error:
        invocation.reporter.result(restore_result(error.result, ok=False))
        raise


def _to_time(invocation: Invocation, text: str, options: "Options") -> None:
    from mistudio_ops.operations.restore.to_time import go_back, moment
    from mistudio_ops.presentation.point_in_time import went_back_result

    done = go_back(invocation.workplace(), moment(text), confirm=options.confirm)
    invocation.reporter.result(went_back_result(done))


def _ask(invocation: Invocation) -> "Callable[[Loss], str | None]":
    from mistudio_ops.presentation.restore import loss_text

    def ask(loss: "Loss") -> str | None:
        invocation.reporter.note(loss_text(loss))
        question = f"Type the database's name ({loss.database}) to replace it by backup {loss.backup_id}"
        return str(typer.prompt(question, default="", show_default=False, err=True)).strip()

    return ask


def _resume(invocation: Invocation, options: "Options") -> None:
    from mistudio_ops.operations.restore.restore import resume as run
    from mistudio_ops.presentation.restore import restore_result

    invocation.reporter.result(restore_result(run(invocation.workplace(), options)))


def _undo(invocation: Invocation, options: "Options") -> None:
    from mistudio_ops.operations.restore.afterwards import undo as run
    from mistudio_ops.presentation.restore import restore_result

    invocation.reporter.result(restore_result(run(invocation.workplace(), options)))


def _abort(invocation: Invocation, options: "Options") -> None:
    from mistudio_ops.operations.restore.afterwards import abort as run
    from mistudio_ops.presentation.restore import abort_result

    invocation.reporter.result(abort_result(run(invocation.workplace(), options)))


def _finalize(invocation: Invocation, options: "Options") -> None:
    from mistudio_ops.operations.restore.afterwards import finalize as run
    from mistudio_ops.presentation.restore import finalize_result

    invocation.reporter.result(finalize_result(run(invocation.workplace(), options)))


def _status(invocation: Invocation, options: "Options") -> None:
    from mistudio_ops.operations.restore.afterwards import status as run
    from mistudio_ops.presentation.restore import status_result

    del options
    invocation.reporter.result(status_result(run(invocation.workplace())))
