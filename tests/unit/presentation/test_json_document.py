"""One document, whatever happens."""

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from mistudio_ops.domain.check import Status
from mistudio_ops.presentation.blocks import Line
from mistudio_ops.presentation.json_document import json_value
from mistudio_ops.presentation.reporter import ErrorReport, Reporter, Result
from mistudio_ops.presentation.select import select_reporter


@dataclass(frozen=True)
class Thing:
    """Nested data."""

    path: Path
    tags: frozenset[str]


@pytest.fixture
def streams() -> tuple[io.StringIO, io.StringIO]:
    return io.StringIO(), io.StringIO()


@pytest.fixture
def reporter(streams: tuple[io.StringIO, io.StringIO]) -> Reporter:
    return select_reporter(*streams, json=True, schema="test/1", environ={})


def test_everything_but_the_document_is_on_stderr(reporter: Reporter, streams: tuple[io.StringIO, io.StringIO]) -> None:
    with reporter.step("work"):
        reporter.note("hello")
    reporter.output("a log line")
    reporter.result(Result("test/1", {"a": 1}, (Line("not shown"),)))
    reporter.close()
    reporter.close()
    assert json.loads(streams[0].getvalue()) == {"schema": "test/1", "ok": True, "data": {"a": 1}, "error": None}
    assert streams[1].getvalue().splitlines() == ["hello", "ok      work (0.0 s)"]


def test_an_error_keeps_what_was_found(reporter: Reporter, streams: tuple[io.StringIO, io.StringIO]) -> None:
    reporter.result(Result("test/2", [1]))
    reporter.error(ErrorReport("locked", "busy", "wait", ("OSError: x",)))
    reporter.close()
    assert json.loads(streams[0].getvalue()) == {
        "schema": "test/2",
        "ok": False,
        "data": [1],
        "error": {"code": "locked", "message": "busy", "hint": "wait", "causes": ["OSError: x"]},
    }
    assert "error: busy" in streams[1].getvalue()


def test_no_result_is_not_ok(reporter: Reporter, streams: tuple[io.StringIO, io.StringIO]) -> None:
    reporter.close()
    assert json.loads(streams[0].getvalue()) == {"schema": "test/1", "ok": False, "data": None, "error": None}


def test_values_take_json_forms() -> None:
    value = {
        Status.OK: Thing(Path("/x"), frozenset({"b", "a"})),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "nan": float("nan"),
        "secret": SecretStr("hunter2"),
        "truth": True,
    }
    assert json_value(value) == {
        "ok": {"path": "/x", "tags": ["a", "b"]},
        "when": "2026-01-02T00:00:00+00:00",
        "nan": None,
        "secret": "********",
        "truth": True,
    }


def test_an_unknown_type_is_an_error_not_a_repr() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        json_value(object())
