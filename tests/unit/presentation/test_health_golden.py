"""What a health report looks like, to the letter."""

import io
import json
from pathlib import Path

from mistudio_ops.presentation.health import health_result, summary_line
from mistudio_ops.presentation.select import select_reporter
from tests.unit.presentation.samples import REPORT

GOLDEN = Path(__file__).parent / "golden"


def shown(*, as_json: bool) -> str:
    stdout = io.StringIO()
    reporter = select_reporter(stdout, io.StringIO(), json=as_json, environ={})
    reporter.result(health_result(REPORT))
    reporter.close()
    return stdout.getvalue()


def test_plain() -> None:
    assert shown(as_json=False) == (GOLDEN / "health.txt").read_text()


def test_json() -> None:
    text = shown(as_json=True)
    assert text.count("\n") == 1, "one document on one line"
    assert json.loads(text) == json.loads((GOLDEN / "health.json").read_text())


def test_watch_line_names_what_is_wrong() -> None:
    assert summary_line(REPORT, "10:00:00") == (
        "10:00:00 UNHEALTHY 2/4 redis: connection refused; worker: needs redis, which fails: no answer; "
        "disk: state: 9.0 GiB free of 100.0 (9%)"
    )
