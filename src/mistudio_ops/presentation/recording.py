"""Reporter for tests: keeps what it is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mistudio_ops.presentation.plain import PlainStep
from mistudio_ops.presentation.reporter import ErrorReport, Result


@dataclass
class RecordingReporter:
    """What an operation said, in order; ``steps`` holds ``(title, word)`` as they ended."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    errors: list[ErrorReport] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    closed: bool = False

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[PlainStep]:
        """Record how the step ends."""
        del total
        step = PlainStep()
        failed = True
        try:
            yield step
            failed = False
        finally:
            self.steps.append((title, step.ending(title, failed=failed, seconds=0.0)[0]))

    def note(self, text: str) -> None:
        """Record it."""
        self.notes.append(text)

    def debug(self, text: str) -> None:
        """Record it among the notes."""
        self.notes.append(text)

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Record it with its hint."""
        self.warnings.append(f"{text} ({hint})" if hint else text)

    def output(self, text: str) -> None:
        """Record it."""
        self.outputs.append(text)

    def result(self, result: Result) -> None:
        """Record it."""
        self.results.append(result)

    def error(self, report: ErrorReport) -> None:
        """Record it."""
        self.errors.append(report)

    def hide(self, *secrets: str) -> None:
        """Record them."""
        self.hidden.update(secrets)

    def close(self) -> None:
        """Record that."""
        self.closed = True
