"""Reporter for pipes, logs and cron: plain lines, no colour, no animation."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from mistudio_ops.presentation.blocks import Block, Line, Raw, Table, cell
from mistudio_ops.presentation.redaction import Redactor, printable
from mistudio_ops.presentation.reporter import ErrorReport, Result

#: A step that takes longer says that it has begun, so that a log never looks hung.
ANNOUNCE_AFTER_SECONDS = 2.0
_GAP = "  "


class PlainStep:
    """Keeps what the last line will say."""

    def __init__(self) -> None:
        self.text = ""
        self.skipped: str | None = None
        self.failed = False

    def advance(self, amount: float = 1.0) -> None:
        """Count nothing: there is no bar."""

    def detail(self, text: str) -> None:
        """Remember it for the last line."""
        self.text = text

    def skip(self, reason: str) -> None:
        """End as skipped."""
        self.skipped = reason

    def fail(self, reason: str) -> None:
        """End as failed."""
        self.failed = True
        self.text = reason

    def ending(self, title: str, *, failed: bool, seconds: float) -> tuple[str, str]:
        """Return the word and the rest of the step's last line."""
        word = "failed" if failed or self.failed else "skip" if self.skipped is not None else "ok"
        extra = self.text if self.skipped is None else self.skipped
        return word, f"{title} ({seconds:.1f} s){f': {extra}' if extra else ''}"


class PlainReporter:
    """Writes lines; the other reporters inherit what they do not draw themselves."""

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        *,
        verbose: bool = False,
        redactor: Redactor | None = None,
        clock: Callable[[], float] = time.monotonic,
        announce_after: float = ANNOUNCE_AFTER_SECONDS,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._verbose = verbose
        self._redactor = redactor or Redactor()
        self._clock = clock
        self._announce_after = announce_after
        self._lock = threading.Lock()

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[PlainStep]:
        """Print one line when the step ends, and one before it if it takes long."""
        del total  # a bar would need a terminal
        step = PlainStep()
        begun = self._clock()
        announcement = threading.Timer(self._announce_after, self._progress, ("..", title))
        announcement.daemon = True
        announcement.start()
        failed = True
        try:
            yield step
            failed = False
        finally:
            announcement.cancel()
            self._progress(*step.ending(title, failed=failed, seconds=self._clock() - begun))

    def note(self, text: str) -> None:
        """Print it to stderr."""
        self._say(text)

    def debug(self, text: str) -> None:
        """Print it to stderr under ``-v``."""
        if self._verbose:
            self._say(text)

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Print it to stderr."""
        self._say(f"warning: {text}")
        if hint:
            self._say(f"  hint: {hint}")

    def output(self, text: str) -> None:
        """Print it to stdout at once."""
        self._write(self._stdout, printable(text) + "\n")

    def result(self, result: Result) -> None:
        """Draw the blocks on stdout."""
        self._write(self._stdout, draw(result.blocks))

    def error(self, report: ErrorReport) -> None:
        """Print what, why and what next to stderr."""
        self._say(f"error: {report.message}")
        for cause in report.causes:
            self._say(f"  because: {cause}")
        if report.hint:
            self._say(f"  hint: {report.hint}")

    def hide(self, *secrets: str) -> None:
        """Mask these from now on."""
        self._redactor.hide(*secrets)

    def close(self) -> None:
        """Flush both streams."""
        self._stdout.flush()
        self._stderr.flush()

    def _progress(self, word: str, text: str) -> None:
        self._say(f"{word:<6}{_GAP}{text}")

    def _say(self, text: str) -> None:
        self._write(self._stderr, printable(text) + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            stream.write(self._redactor.mask(text))
            stream.flush()


def draw(blocks: Sequence[Block]) -> str:
    """Return the blocks as text; tables have aligned columns and no frames."""
    return "".join(_draw(block) for block in blocks)


def _draw(block: Block) -> str:
    if isinstance(block, Raw):
        return block.text if block.text.endswith("\n") or not block.text else f"{block.text}\n"
    if isinstance(block, Line):
        return f"{printable(block.text)}\n"
    return _draw_table(block)


def _draw_table(table: Table) -> str:
    rows = [[column.upper() for column in table.columns]]
    rows += [[printable(cell(value).text).replace("\n", " ") for value in row] for row in table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    right = [column in table.right for column in table.columns]
    title = f"{table.title}\n" if table.title else ""
    return title + "".join(f"{_draw_row(row, widths, right)}\n" for row in rows)


def _draw_row(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        text.rjust(width) if to_the_right else text.ljust(width)
        for text, width, to_the_right in zip(row, widths, right, strict=True)
    )
    return _GAP.join(padded).rstrip()
