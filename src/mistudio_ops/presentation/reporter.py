"""How operations tell what they do. The only package that prints.

Results go to stdout, everything else (steps, notes, warnings, errors) to stderr. Operations get a ``Reporter`` and
never know which kind; ``presentation.select`` picks one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from mistudio_ops.errors import OpsError
from mistudio_ops.presentation.blocks import Block


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found or did.

    ``data`` is the JSON form: dataclasses, mappings, sequences and scalars (paths, datetimes and enums are turned
    into strings). ``blocks`` is the same for a person. ``schema`` names the form of ``data``, as in
    ``mistudio-ops/health/1``; its number grows when a field goes or changes meaning.
    """

    schema: str
    data: Any
    blocks: Sequence[Block] = ()
    ok: bool = True


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as it is shown: a stable code, what failed, what to type next, and the chain of causes."""

    code: str
    message: str
    hint: str | None = None
    causes: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException, *, code: str = "unexpected") -> "ErrorReport":
        """Return the report of ``error``; its causes are those it was raised from."""
        if isinstance(error, OpsError):
            return cls(error.code, error.message, error.hint, _causes(error))
        return cls(code, _describe(error), None, _causes(error))


def _causes(error: BaseException) -> tuple[str, ...]:
    causes: list[str] = []
    current = error.__cause__
    while current is not None and len(causes) < 10:  # noqa: PLR2004 - a chain longer than a screen helps nobody
        causes.append(_describe(current))
        current = current.__cause__
    return tuple(causes)


def _describe(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Step(Protocol):
    """One piece of work in progress."""

    def advance(self, amount: float = 1.0) -> None:
        """Count ``amount`` of the step's total as done."""

    def detail(self, text: str) -> None:
        """Say what it is at; replaces what was said before and stays in its last line."""

    def skip(self, reason: str) -> None:
        """Mark the step as not needed. It ends as ``skip``."""

    def fail(self, reason: str) -> None:
        """Mark the step as failed although nothing is raised. It ends as ``failed``."""


class Reporter(Protocol):
    """What an operation may say. Safe to call from several threads."""

    def step(self, title: str, *, total: float | None = None) -> AbstractContextManager[Step]:
        """Time a piece of work; it is ``ok`` when the block ends, ``failed`` when an exception leaves it.

        With ``total`` a terminal shows a bar.
        """
        ...

    def note(self, text: str) -> None:
        """Say something worth knowing (stderr)."""

    def debug(self, text: str) -> None:
        """Say something that only ``-v`` shows (stderr)."""

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Say what may go wrong, and what to do about it (stderr)."""

    def output(self, text: str) -> None:
        """Print a line of the result as it comes, such as a log line (stdout; not under ``--json``)."""

    def result(self, result: Result) -> None:
        """Give the command's result, once (stdout)."""

    def error(self, report: ErrorReport) -> None:
        """Say that the command failed (stderr; under ``--json`` in the document on stdout too)."""

    def hide(self, *secrets: str) -> None:
        """Mask these values wherever they would appear from now on."""

    def close(self) -> None:
        """Write what is outstanding. Nothing may be reported afterwards."""
