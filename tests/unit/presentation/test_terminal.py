"""What a person at a terminal gets."""

import io

import pytest
from rich.progress import Progress

from mistudio_ops.presentation.blocks import Cell, Line, Table
from mistudio_ops.presentation.plain import PlainReporter
from mistudio_ops.presentation.reporter import Result
from mistudio_ops.presentation.rich_text import RichReporter, _Estimate
from mistudio_ops.presentation.select import select_reporter
from tests.unit.presentation.samples import Terminal

RESULT = Result("x/1", None, (Table(("unit", "state"), [("[b]proxy", Cell("ok", "good"))]), Line("fine", "good")))


def test_colour_and_the_words_themselves() -> None:
    stdout, stderr = Terminal(), Terminal()
    reporter = select_reporter(stdout, stderr, environ={"TERM": "xterm"})
    with reporter.step("migrate", total=2) as step:
        step.advance()
        step.detail("0001")
    reporter.result(RESULT)
    reporter.close()
    assert "\x1b[" in stdout.getvalue()
    assert "[b]proxy" in stdout.getvalue(), "text is never taken for markup"
    assert "migrate (0.0 s): 0001" in stderr.getvalue()


def test_no_color_takes_the_colours_away() -> None:
    stdout, stderr = Terminal(), Terminal()
    reporter = select_reporter(stdout, stderr, environ={"TERM": "xterm", "NO_COLOR": "1"})
    reporter.result(RESULT)
    reporter.warning("careful", hint="look")
    assert "\x1b[3" not in stdout.getvalue() + stderr.getvalue()
    assert "ok" in stdout.getvalue()


def test_an_empty_no_color_means_nothing() -> None:
    stdout = Terminal()
    select_reporter(stdout, Terminal(), environ={"TERM": "xterm", "NO_COLOR": ""}).result(RESULT)
    assert "\x1b[3" in stdout.getvalue()


def test_a_pipe_beside_a_terminal_gets_plain_text() -> None:
    stdout = io.StringIO()
    reporter = select_reporter(stdout, Terminal(), environ={"TERM": "xterm"})
    assert isinstance(reporter, RichReporter)
    reporter.result(RESULT)
    assert stdout.getvalue() == "UNIT      STATE\n[b]proxy  ok\nfine\n"


def test_dumb_terminals_pipes_and_plain_get_plain_text() -> None:
    for stream, plain, environ in (
        (Terminal(), False, {"TERM": "dumb"}),
        (io.StringIO(), False, {}),
        (Terminal(), True, {}),
    ):
        reporter = select_reporter(stream, stream, plain=plain, environ=environ)
        assert type(reporter) is PlainReporter


@pytest.mark.parametrize(
    ("total", "done", "seconds", "text"),
    [(None, 5, 10, ""), (100, 0, 10, ""), (100, 50, 10, "about 10 s left"), (100, 10, 20, "about 3 min 00 s left")],
)
def test_a_step_with_a_total_estimates_the_time_left(
    total: float | None, done: float, seconds: float, text: str
) -> None:
    now = [0.0]
    progress = Progress(get_time=lambda: now[0])
    task = progress.add_task("load", total=total)
    for part in (0.5, 0.5):
        now[0] += seconds * part
        progress.advance(task, done * part)
    assert _Estimate().render(progress.tasks[0]).plain == text
