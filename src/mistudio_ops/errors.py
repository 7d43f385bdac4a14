"""Errors of the operations CLI, and the one table of exit codes."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the shell sees. 130 and 143 are those of an interrupted process."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOT_FOUND = 10
    LOCKED = 11
    VERIFICATION = 12
    PRECONDITION = 13
    PREVIOUS_SERVES = 14
    INTERRUPTED = 130
    TERMINATED = 143


class OpsError(Exception):
    """An expected failure: what failed and why, and in ``hint`` what to type next."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OpsError):
    """Wrong usage or configuration."""

    code = "usage"
    exit_code = ExitCode.USAGE


class NothingFoundError(OpsError):
    """The environment, unit, release or file named does not exist."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND


class LockedError(OpsError):
    """Somebody else works on this environment."""

    code = "locked"
    exit_code = ExitCode.LOCKED


class VerificationError(OpsError):
    """What was made does not pass its check."""

    code = "verification"
    exit_code = ExitCode.VERIFICATION


class PreconditionError(OpsError):
    """The machine lacks something: disk, memory, a version, a free port. Nothing was changed."""

    code = "precondition"
    exit_code = ExitCode.PRECONDITION


class PreviousServesError(OpsError):
    """A deploy failed, and the release before it goes on serving."""

    code = "previous_serves"
    exit_code = ExitCode.PREVIOUS_SERVES
