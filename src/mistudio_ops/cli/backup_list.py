"""``mistudio-ops backup list``."""

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup-list/1", codes={ExitCode.OK: "listed, whatever they are worth"}, name="list")
    def list_backups(invocation: Invocation) -> None:
        """List the backups, oldest first: how each was verified, and what is wrong with those that cannot be used."""
        from datetime import UTC, datetime

        from mistudio_ops.drivers.backup_directory import BackupDirectory
        from mistudio_ops.presentation.backup_create import list_result

        directory = BackupDirectory(invocation.environment().backups)
        invocation.reporter.result(list_result(directory.root, directory.all(), datetime.now(UTC)))
