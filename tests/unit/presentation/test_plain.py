"""The reporter for pipes and logs."""

import io
import threading

import pytest

from mistudio_ops.errors import LockedError
from mistudio_ops.presentation.blocks import Cell, Line, Raw, Table
from mistudio_ops.presentation.plain import PlainReporter, draw
from mistudio_ops.presentation.reporter import ErrorReport, Result


class Clock:
    """Advances by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def streams() -> tuple[io.StringIO, io.StringIO]:
    return io.StringIO(), io.StringIO()


def test_steps_end_with_a_word_and_their_time(streams: tuple[io.StringIO, io.StringIO]) -> None:
    clock = Clock()
    reporter = PlainReporter(*streams, clock=clock)
    with reporter.step("start postgres") as step:
        step.detail("process 12")
        clock.now += 1.26
    with reporter.step("build") as step:
        step.skip("nothing changed")
    with pytest.raises(ValueError, match="no"), reporter.step("migrate", total=3):
        raise ValueError("no")
    assert streams[1].getvalue().splitlines() == [
        "ok      start postgres (1.3 s): process 12",
        "skip    build (0.0 s): nothing changed",
        "failed  migrate (0.0 s)",
    ]
    assert streams[0].getvalue() == ""


def test_a_long_step_says_that_it_has_begun(streams: tuple[io.StringIO, io.StringIO]) -> None:
    reporter = PlainReporter(*streams, announce_after=0.01)
    announced = threading.Event()
    with reporter.step("migrate"):
        for _ in range(200):
            if streams[1].getvalue():
                break
            announced.wait(0.01)
    assert streams[1].getvalue().splitlines()[0] == "..      migrate"


def test_results_go_to_stdout_and_everything_else_to_stderr(streams: tuple[io.StringIO, io.StringIO]) -> None:
    reporter = PlainReporter(*streams)
    reporter.note("a note")
    reporter.debug("hidden")
    reporter.warning("low on disk", hint="delete something")
    reporter.output("a log line")
    reporter.result(Result("x/1", None, (Line("done"),)))
    reporter.error(ErrorReport("failed", "it broke", "mend it", ("OSError: no space",)))
    reporter.close()
    assert streams[0].getvalue() == "a log line\ndone\n"
    assert streams[1].getvalue().splitlines() == [
        "a note", "warning: low on disk", "  hint: delete something",
        "error: it broke", "  because: OSError: no space", "  hint: mend it",
    ]  # fmt: skip


def test_verbose_shows_debug(streams: tuple[io.StringIO, io.StringIO]) -> None:
    PlainReporter(*streams, verbose=True).debug("details")
    assert streams[1].getvalue() == "details\n"


def test_tables_are_aligned_and_have_no_trailing_space() -> None:
    table = Table(("unit", "pid"), [("proxy", "1"), (Cell("backend-1", "good"), "12345")], right=frozenset({"pid"}))
    assert draw([table]) == "UNIT         PID\nproxy          1\nbackend-1  12345\n"


def test_an_empty_table_is_its_headings() -> None:
    assert draw([Table(("a", "b"), [], title="Nothing")]) == "Nothing\nA  B\n"


def test_raw_text_is_left_as_it_is() -> None:
    assert draw([Raw("a\tb\n\n c")]) == "a\tb\n\n c\n"
    assert draw([Raw("")]) == ""


def test_evidence_cannot_move_the_cursor() -> None:
    assert draw([Line("\x1b[2J\x07ok\r")]) == "\\x1b[2J\\x07ok\\x0d\n"
    assert draw([Table(("a",), [("x\ny\x1b[0m",)])]) == "A\nx y\\x1b[0m\n"


def test_an_error_report_has_code_hint_and_causes() -> None:
    error = LockedError("busy", hint="wait")
    error.__cause__ = OSError("disk full")
    error.__cause__.__cause__ = KeyError()
    assert ErrorReport.of(error) == ErrorReport("locked", "busy", "wait", ("OSError: disk full", "KeyError"))
    assert ErrorReport.of(ValueError()) == ErrorReport("unexpected", "ValueError")
