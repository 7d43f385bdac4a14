"""No secret reaches a stream, whichever way it comes."""

import io
import json

import pytest

from mistudio_ops.presentation.blocks import Line, Raw, Table
from mistudio_ops.presentation.redaction import Redactor
from mistudio_ops.presentation.reporter import ErrorReport, Result
from mistudio_ops.presentation.select import select_reporter
from tests.unit.presentation.samples import Terminal

SECRET = 'pla"nted\\-secret'


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_planted_secret_never_appears(stream: type[io.StringIO], as_json: bool) -> None:
    stdout, stderr = stream(), stream()
    reporter = select_reporter(stdout, stderr, json=as_json, verbose=True, environ={})
    reporter.hide(SECRET)
    with reporter.step(f"connect with {SECRET}") as step:
        step.detail(SECRET)
    reporter.note(SECRET)
    reporter.debug(SECRET)
    reporter.warning(SECRET, hint=SECRET)
    reporter.output(SECRET)
    blocks = (Line(SECRET), Raw(SECRET), Table(("a",), [(SECRET,)], title=SECRET))
    reporter.result(Result("x/1", {"a": SECRET, SECRET: [SECRET]}, blocks))
    reporter.error(ErrorReport("x", SECRET, SECRET, (SECRET,)))
    reporter.close()
    written = stdout.getvalue() + stderr.getvalue()
    assert SECRET not in written
    assert json.dumps(SECRET)[1:-1] not in written
    assert "********" in written


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:pw@h/db", "postgresql://u:********@h/db"),
        ("at redis://:pw@h:1/0 and redis://:other@h", "at redis://:********@h:1/0 and redis://:********@h"),
        ("http://127.0.0.1:8700/api", "http://127.0.0.1:8700/api"),
        ("mail a@b.c: at 10:00", "mail a@b.c: at 10:00"),
    ],
)
def test_passwords_in_urls_are_masked_untold(text: str, masked: str) -> None:
    assert Redactor().mask(text) == masked


def test_short_values_do_not_blank_out_words() -> None:
    redactor = Redactor()
    redactor.hide("a", "", "abcdef", "abcdefgh")
    assert redactor.mask("a cat abcdefgh") == "a cat ********"
