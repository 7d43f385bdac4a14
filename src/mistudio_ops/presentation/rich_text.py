"""Reporter for a person at a terminal: colour, bars, tables that fit the window."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from mistudio_ops.presentation.blocks import Block, Line, Raw, Table, Tone, cell
from mistudio_ops.presentation.plain import PlainReporter, PlainStep
from mistudio_ops.presentation.redaction import Redactor, printable
from mistudio_ops.presentation.reporter import ErrorReport, Result

_STYLES: dict[Tone, str] = {"plain": "", "good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim"}
_WORDS: dict[str, Tone] = {"ok": "good", "failed": "bad", "skip": "dim", "..": "dim"}


class _Estimate(ProgressColumn):
    """Time left at the rate so far, for steps that know their total."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return it; nothing before the first part is done."""
        left = task.time_remaining if task.total is not None and task.completed > 0 and not task.finished else None
        return Text("" if left is None else f"about {_duration(left)} left", style="dim")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class RichStep(PlainStep):
    """A step that moves a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__()
        self._progress = progress
        self._task = task

    def advance(self, amount: float = 1.0) -> None:
        """Move the bar."""
        self._progress.advance(self._task, amount)

    def detail(self, text: str) -> None:
        """Show it beside the bar."""
        super().detail(text)
        self._progress.update(self._task, detail=printable(text))


class RichReporter(PlainReporter):
    """Draws on terminals. A stream that is none (a pipe beside a terminal) gets plain text."""

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        *,
        color: bool = True,
        verbose: bool = False,
        redactor: Redactor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stdout, stderr, verbose=verbose, redactor=redactor, clock=clock)
        self._out = Console(file=stdout, no_color=not color, highlight=False, soft_wrap=False)
        self._err = Console(file=stderr, no_color=not color, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._running = 0
        self._steps = threading.Lock()

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[RichStep]:
        """Show a spinner or a bar, and leave one line behind."""
        progress = self._enter()
        task = progress.add_task(self._redactor.mask(printable(title)), total=total, detail="")
        step = RichStep(progress, task)
        begun = self._clock()
        failed = True
        try:
            yield step
            failed = False
        finally:
            progress.remove_task(task)
            self._leave()
            self._progress(*step.ending(title, failed=failed, seconds=self._clock() - begun))

    def result(self, result: Result) -> None:
        """Draw the blocks: with colour on a terminal, plainly elsewhere."""
        if not self._out.is_terminal:
            super().result(result)
            return
        for block in result.blocks:
            self._draw(block)

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Print it to stderr in yellow."""
        self._styled("warning: ", "warn", text)
        if hint:
            self._say(f"  hint: {hint}")

    def error(self, report: ErrorReport) -> None:
        """Print it to stderr in red."""
        self._styled("error: ", "bad", report.message)
        for cause in report.causes:
            self._styled(f"  because: {cause}", "dim", "")
        if report.hint:
            self._say(f"  hint: {report.hint}")

    def _enter(self) -> Progress:
        with self._steps:
            if self._live is None:
                self._live = Progress(
                    SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), BarColumn(bar_width=20),
                    TimeElapsedColumn(), _Estimate(), TextColumn("{task.fields[detail]}", style="dim"),
                    console=self._err, transient=True, disable=not self._err.is_terminal,
                )  # fmt: skip
                self._live.start()
            self._running += 1
            return self._live

    def _leave(self) -> None:
        with self._steps:
            self._running -= 1
            if self._running == 0 and self._live is not None:
                self._live.stop()
                self._live = None

    def _progress(self, word: str, text: str) -> None:
        self._styled(f"{word:<6}  ", _WORDS.get(word, "plain"), text)

    def _say(self, text: str) -> None:
        self._styled("", "plain", text)

    def _styled(self, head: str, tone: Tone, text: str) -> None:
        line = Text(self._clean(head), style=_STYLES[tone])
        line.append(self._clean(text), style="none")
        self._err.print(line)

    def _draw(self, block: Block) -> None:
        if isinstance(block, Raw):
            self._write(self._stdout, block.text if block.text.endswith("\n") else f"{block.text}\n")
        elif isinstance(block, Line):
            self._out.print(Text(self._clean(block.text), style=_STYLES[block.tone]))
        else:
            self._out.print(self._table(block))

    def _table(self, table: Table) -> RichTable:
        drawn = RichTable(title=table.title, box=None, header_style="bold", pad_edge=False, title_justify="left")
        for column in table.columns:
            drawn.add_column(column.upper(), justify="right" if column in table.right else "left", overflow="fold")
        for row in table.rows:
            cells = (cell(value) for value in row)
            drawn.add_row(*(Text(self._clean(one.text), style=_STYLES[one.tone]) for one in cells))
        return drawn

    def _clean(self, text: str) -> str:
        return self._redactor.mask(printable(text))
