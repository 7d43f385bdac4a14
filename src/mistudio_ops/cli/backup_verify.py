"""``mistudio-ops backup verify``."""

from enum import StrEnum
from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb
from mistudio_ops.errors import ExitCode, UsageError

_CODES = {
    ExitCode.OK: "all that were looked at are good",
    ExitCode.FAILED: "the server or the machine failed, or no key at hand opens a backup; it may be good",
    ExitCode.NOT_FOUND: "there is no such backup",
    ExitCode.LOCKED: "somebody else works on these backups",
    ExitCode.VERIFICATION: "a backup is bad; it is marked so",
    ExitCode.PRECONDITION: "client programs, rights or room are missing; nothing is said about the backup",
}


class LevelName(StrEnum):
    """How far a backup is proven."""

    HASH = "hash"
    READ = "read"
    RESTORE = "restore"


IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids, or the starts of ids.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every backup.")]
LevelOption = Annotated[LevelName, typer.Option("--level", help="How far; each level includes those before it.")]
WaitOption = Annotated[
    float, typer.Option("--lock-wait", metavar="S", min=0, help="Wait for who works on these backups, S seconds.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @verb(app, schema="mistudio-ops/backup-verify/1", codes=_CODES, environment="option")
    def verify(
        invocation: Invocation,
        *,
        ids: IdsArgument = None,
        every: AllOption = False,
        level: LevelOption = LevelName.READ,
        lock_wait: WaitOption = 0.0,
    ) -> ExitCode:
        """Prove that backups are good; alone, the newest.

        hash: every byte is as it was written. read: it can be decrypted, decompressed and read to its end. restore: it
        is restored into a scratch database, which is compared, questioned and dropped.
        """
        from mistudio_ops.operations.backup.verify import verify_selected
        from mistudio_ops.presentation.backup_verify import verify_result

        if every and ids:
            raise UsageError("--all and ids say different things", hint="leave one of them out")
        workplace = invocation.workplace()
        outcomes = verify_selected(workplace, ids or (), level.value, every=every, lock_wait=lock_wait)
        if len(outcomes) == 1 and outcomes[0].error is not None:
            raise outcomes[0].error
        invocation.reporter.result(verify_result(outcomes))
        if any(not one.ok and one.error is None for one in outcomes):
            return ExitCode.VERIFICATION
        return next((one.error.exit_code for one in outcomes if one.error), ExitCode.OK)
