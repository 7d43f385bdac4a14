"""Reporter for what nobody watches: keeps everything to itself, and says all of it once something went wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mistudio_ops.presentation.plain import PlainStep
from mistudio_ops.presentation.redaction import Redactor
from mistudio_ops.presentation.reporter import ErrorReport, Reporter, Result


class DeferredReporter:
    """Keeps steps, notes and warnings until ``speak`` passes them on to ``reporter``; from then on all goes there."""

    def __init__(self, reporter: Reporter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self._redactor = Redactor()
        self._kept: list[Callable[[], None]] = []
        self._spoken = False
        self._lock = threading.Lock()

    def speak(self) -> None:
        """Say what was kept, in order."""
        with self._lock:
            kept, self._kept, self._spoken = self._kept, [], True
        for say in kept:
            say()

    def mask(self, text: str) -> str:
        """Return ``text`` without the secrets that this reporter was told of."""
        return self._redactor.mask(text)

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[PlainStep]:
        """Keep the line with which the step ends."""
        del total
        step, begun, failed = PlainStep(), self._clock(), True
        try:
            yield step
            failed = False
        finally:
            word, text = step.ending(title, failed=failed, seconds=self._clock() - begun)
            self._say(lambda: self._reporter.note(f"{word:<6}  {text}"))

    def note(self, text: str) -> None:
        """Keep it."""
        self._say(lambda: self._reporter.note(text))

    def debug(self, text: str) -> None:
        """Keep it."""
        self._say(lambda: self._reporter.debug(text))

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Keep it."""
        self._say(lambda: self._reporter.warning(text, hint=hint))

    def output(self, text: str) -> None:
        """Keep it."""
        self._say(lambda: self._reporter.output(text))

    def result(self, result: Result) -> None:
        """Keep it."""
        self._say(lambda: self._reporter.result(result))

    def error(self, report: ErrorReport) -> None:
        """Say everything: it went wrong."""
        self.speak()
        self._reporter.error(report)

    def hide(self, *secrets: str) -> None:
        """Mask these from now on, wherever it is said."""
        self._redactor.hide(*secrets)
        self._reporter.hide(*secrets)

    def close(self) -> None:
        """Leave what was kept unsaid."""
        self._reporter.close()

    def _say(self, say: Callable[[], None]) -> None:
        with self._lock:
            if not self._spoken:
                self._kept.append(say)
                return
        say()
