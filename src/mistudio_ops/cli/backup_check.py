"""``mistudio-ops backup check``."""

from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode, OpsError

#: What monitoring systems take for "the plugin could not look".
_NAGIOS_UNKNOWN = 3
_SCHEMA = "mistudio-ops/backup-check/1"
_CODES = {
    ExitCode.OK: "nothing fails (with --nagios: OK)",
    ExitCode.FAILED: "a check fails (with --nagios: WARNING, nothing fails)",
    ExitCode.USAGE: "wrong usage or configuration (with --nagios: CRITICAL, a check fails)",
    ExitCode.PARTIAL: "only with --nagios: UNKNOWN, the backups could not be looked at",
}

NagiosOption = Annotated[bool, typer.Option("--nagios", help="One line and performance data; exit 0, 1, 2 or 3.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema=_SCHEMA, codes=_CODES, environment="option")
    def check(invocation: Invocation, *, nagios: NagiosOption = False) -> ExitCode:
        """Check the backups: the age and size of the newest good one, when one was last restored, bad ones, room.

        Writes the Prometheus textfile (backup.textfile) and calls MISTUDIO_HEARTBEAT_URL, where these are set.
        """
        from mistudio_ops.operations.backup.check import check_and_tell
        from mistudio_ops.presentation.backup_check import check_result

        if nagios:
            return _nagios(invocation)
        report = check_and_tell(invocation.workplace())
        invocation.reporter.result(check_result(report))
        return ExitCode.OK if report.ok else ExitCode.FAILED


def _nagios(invocation: Invocation) -> ExitCode:
    from mistudio_ops.domain.backup_check import nagios
    from mistudio_ops.operations.backup.check import check_and_tell
    from mistudio_ops.presentation.backup_check import nagios_result
    from mistudio_ops.presentation.blocks import Raw
    from mistudio_ops.presentation.reporter import Result

    try:
        report = check_and_tell(invocation.workplace())
    except (OpsError, OSError) as error:
        line = Raw(f"MISTUDIO BACKUP UNKNOWN - {' '.join(str(error).split())}")
        invocation.reporter.result(Result(_SCHEMA, None, (line,), ok=False))
        return ExitCode(_NAGIOS_UNKNOWN)
    invocation.reporter.result(nagios_result(report))
    return ExitCode(nagios(report)[0])
