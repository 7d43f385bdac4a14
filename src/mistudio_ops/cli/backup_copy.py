"""``mistudio-ops backup push`` and ``backup pull``: copies elsewhere."""

from typing import Annotated

import typer

from mistudio_ops.cli.backup_create import WaitOption
from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode, UsageError

_PUSH_CODES = {
    ExitCode.OK: "every copy is there, and was read back",
    ExitCode.FAILED: "a destination cannot be reached",
    ExitCode.PARTIAL: "some copies are there, and others failed",
    ExitCode.NOT_FOUND: "there is no such backup",
    ExitCode.LOCKED: "somebody else works on these backups",
    ExitCode.VERIFICATION: "the backup, or the copy, is damaged",
    ExitCode.PRECONDITION: "a destination refuses: no space, no permission, unknown host key, another backup",
}
_PULL_CODES = {
    ExitCode.OK: "the backup is here, and its hashes were compared",
    ExitCode.FAILED: "the destination cannot be reached",
    ExitCode.NOT_FOUND: "there is no such copy",
    ExitCode.LOCKED: "somebody else works on these backups",
    ExitCode.VERIFICATION: "the copy is damaged; nothing of it stays here",
    ExitCode.PRECONDITION: "no room here, another backup of that id, or the destination refuses",
}

WhichArgument = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Its id, the start of one, or latest.", show_default="latest")
]
FromArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, the start of one, or latest.")]
_URLS = "/a/folder, ssh://user@host/folder or s3://bucket/prefix?endpoint=URL"
ToOption = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="URL", help=f"{_URLS}; default: backup.destinations of mistudio.toml."),
]
FromOption = Annotated[str, typer.Option("--from", metavar="URL", help=f"{_URLS}.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every good backup that is not there yet.")]
VerifyOption = Annotated[
    bool, typer.Option("--verify-only", help="Send nothing: read the copies back and compare their hashes.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @verb(app, schema="mistudio-ops/backup-push/1", codes=_PUSH_CODES, environment="option")
    def push(
        invocation: Invocation,
        which: WhichArgument = None,
        *,
        to: ToOption = None,
        everything: AllOption = False,
        verify_only: VerifyOption = False,
        lock_wait: WaitOption = 0.0,
    ) -> ExitCode:
        """Copy a backup elsewhere, and read it back there.

        What is there already is not sent again, and a copy that was interrupted is completed.
        """
        from mistudio_ops.operations.backup.push import push as run
        from mistudio_ops.presentation.backup_copy import push_result

        if everything and which:
            raise UsageError("--all and an id are both given", hint="use one of them")
        workplace = invocation.workplace()
        urls = to or workplace.environment.backup.destinations
        chosen = None if everything else which or "latest"
        report = run(workplace, chosen, urls, verify_only=verify_only, lock_wait=lock_wait)
        invocation.reporter.result(push_result(report))
        return ExitCode.OK if not report.failed else ExitCode.PARTIAL if report.pushed else ExitCode.FAILED

    @verb(app, schema="mistudio-ops/backup-pull/1", codes=_PULL_CODES, environment="option")
    def pull(invocation: Invocation, which: FromArgument, *, from_url: FromOption, lock_wait: WaitOption = 0.0) -> None:
        """Bring a copy back here, with the checkpoints that it needs; then it can be restored."""
        from mistudio_ops.operations.backup.pull import pull as run
        from mistudio_ops.presentation.backup_copy import pull_result

        invocation.reporter.result(pull_result(run(invocation.workplace(), which, from_url, lock_wait=lock_wait)))
