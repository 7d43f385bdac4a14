"""``mistudio-ops backup pin``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode, UsageError

_CODES = (ExitCode.OK, ExitCode.NOT_FOUND, ExitCode.LOCKED)

WhichArgument = Annotated[str, typer.Argument(metavar="ID", help="A backup: its id or the start of it, or latest.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; `backup list` shows it.")]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Take the pin away.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup-pin/1", codes=_CODES, environment="option")
    def pin(
        invocation: Invocation, *, which: WhichArgument, reason: ReasonOption = None, remove: RemoveOption = False
    ) -> None:
        """Pin a backup: nothing removes it by itself until the pin is taken away."""
        from mistudio_ops.operations.backup.pin import pin as set_pin
        from mistudio_ops.operations.backup.pin import unpin
        from mistudio_ops.presentation.backup_prune import pin_result

        if remove and reason is not None:
            raise UsageError("--reason says why a backup is pinned; --remove takes the pin away", hint="leave one out")
        workplace = invocation.workplace()
        stored = unpin(workplace, which) if remove else set_pin(workplace, which, reason=reason)
        invocation.reporter.result(pin_result(stored))
