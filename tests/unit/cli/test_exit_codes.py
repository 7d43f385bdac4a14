"""The one mapping of errors to exit codes, in process."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from mistudio_ops.cli import app as program
from mistudio_ops.cli.context import Session
from mistudio_ops.errors import ExitCode
from tests.unit.cli.program import SECRET, register


@pytest.fixture(autouse=True)
def _verb() -> Iterator[None]:
    before = program.RootGroup.verbs
    register()
    yield
    program.RootGroup.verbs = before


def run(*argv: str, **environ: str) -> Result:
    return CliRunner().invoke(program.app, list(argv), env=environ, prog_name="mistudio-ops")


@pytest.mark.parametrize(
    ("how", "code", "stderr"),
    [
        ("ok", 0, ""),
        ("partial", 3, ""),
        ("locked", 11, "error: somebody else deploys\n  hint: wait for process 7\n"),
        ("caused", 13, "error: no room\n  because: OSError: disk full\n"),
        ("bug", 1, "error: unexpected ZeroDivisionError: a bug of ours\n  hint: run it again with -v"),
        ("bad-parameter", 2, "error: invalid value: not like this\n"),
    ],
)  # fmt: skip
def test_each_ending_has_its_code(how: str, code: int, stderr: str) -> None:
    result = run("end", "--how", how)
    assert result.exit_code == code
    assert result.stderr.partition("\n")[2].startswith(stderr)
    assert result.stdout == ("the result\n" if code in {0, 3} else "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (("end", "--hwo", "ok"), "no such option: --hwo", "mistudio-ops end --help"),
        (("end", "--how", "never"), "invalid value for '--how'", "mistudio-ops end --help"),
        (("end", "--seconds", "soon"), "invalid value for '--seconds'", "mistudio-ops end --help"),
        (("end", "a", "b"), "got unexpected extra argument", "mistudio-ops end --help"),
        (("end", "a", "-e", "b"), "two environments are named: 'a' as argument and 'b' with --env", "name one of them"),
        (("helth",), "no such command 'helth'. Did you mean 'health'?", "mistudio-ops --help"),
        (("qqqq",), "no such command 'qqqq'.", "mistudio-ops --help"),
        ((), "missing command", "mistudio-ops --help"),
        (("config",), "mistudio-ops config needs a command", "mistudio-ops config --help"),
        (("config", "shwo"), "no such command 'shwo'. Did you mean 'show'?", "mistudio-ops config --help"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_hint(argv: tuple[str, ...], message: str, hint: str) -> None:
    result = run(*argv)
    assert result.exit_code == ExitCode.USAGE
    assert message in result.stderr
    assert f"hint: {hint}" in result.stderr
    assert result.stdout == ""


def test_wrong_usage_is_a_document_under_json() -> None:
    result = run("end", "--hwo", "ok", "--json")
    assert result.exit_code == ExitCode.USAGE
    assert json.loads(result.stdout)["error"]["message"].startswith("no such option: --hwo")


def test_json_is_one_document_also_when_it_fails() -> None:
    result = run("end", "--how", "caused", "--json")
    assert result.exit_code == ExitCode.PRECONDITION
    assert json.loads(result.stdout) == {
        "schema": "test/end/1",
        "ok": False,
        "data": None,
        "error": {"code": "precondition", "message": "no room", "hint": None, "causes": ["OSError: disk full"]},
    }


def test_json_before_the_verbs_environment_is_known_too() -> None:
    result = run("config", "show", "nowhere", "--json")
    assert result.exit_code == ExitCode.USAGE
    assert json.loads(result.stdout)["schema"] == "mistudio-ops/config-show/1"


def test_verbose_shows_the_traceback() -> None:
    result = run("end", "--how", "bug", "-v")
    assert result.exit_code == ExitCode.FAILED
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError: a bug of ours" in result.stderr


def test_a_secret_in_an_exception_is_masked_even_in_the_traceback() -> None:
    for extra in ((), ("-v",), ("--json", "-v")):
        result = run("end", "--how", "secret", *extra)
        assert result.exit_code == ExitCode.FAILED
        assert SECRET not in result.output
        assert "********" in result.output


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ((), {}, "local"),
        ((), {"MISTUDIO_ENV": "one"}, "one"),
        (("-e", "two"), {"MISTUDIO_ENV": "one"}, "two"),
        (("three",), {"MISTUDIO_ENV": "one"}, "three"),
        (("four", "--env", "four"), {}, "four"),
    ],
)
def test_how_an_environment_is_named(argv: tuple[str, ...], environ: dict[str, str], expected: str) -> None:
    result = run("end", *argv, "--json", **environ)
    assert json.loads(result.stdout)["data"] == {"environment": expected}


def test_ctrl_c_is_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert program.guard(interrupted, Session(), []) == ExitCode.INTERRUPTED
