"""``mistudio-ops backup list``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode

AtOption = Annotated[
    str | None, typer.Option("--at", metavar="URL", help="List the copies at a destination instead of those here.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    codes = {ExitCode.OK: "listed, whatever they are worth"}

    @verb(app, schema="mistudio-ops/backup-list/1", codes=codes, environment="option", name="list")
    def list_backups(invocation: Invocation, *, at: AtOption = None) -> None:
        """List the backups, oldest first: how each was verified, and what is wrong with those that cannot be used."""
        from datetime import UTC, datetime

        from mistudio_ops.presentation.backup_create import list_result

        workplace = invocation.workplace()
        if at is None:
            backups, where = workplace.directory.all(), str(workplace.directory.root)
        else:
            from mistudio_ops.operations.backup.remote import remote_backups

            backups, where = remote_backups(workplace, at), at
        invocation.reporter.result(list_result(where, backups, datetime.now(UTC)))
