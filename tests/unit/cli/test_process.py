"""A real process: signals, pipes, streams, and what ``--help`` imports."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "tests.unit.cli.program"]
#: Each costs tens of milliseconds; help and completion need none of them.
HEAVY = {
    "alembic", "celery", "docker", "fastapi", "httpx", "jinja2", "numpy", "psutil", "psycopg", "pydantic", "redis",
    "rich", "sqlalchemy", "supervisor", "torch", "mistudio_server",
}  # fmt: skip


def environ(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm"} | extra


def run(*argv: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return call([*PROGRAM, *argv], ROOT, **extra)


def call(argv: list[str], folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, env=environ(**extra), cwd=folder, timeout=30, check=False
    )


def begin(*argv: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*PROGRAM, "end", "--how", "sleep", *argv], text=True, env=environ(), cwd=ROOT, **pipes)
    assert process.stderr is not None
    assert process.stderr.readline() == "sleeping\n"
    return process


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signals_end_it_with_their_code_and_a_document(number: signal.Signals, code: int, name: str) -> None:
    process = begin("--json")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == code
    assert json.loads(stdout)["error"]["code"] == name
    assert "failed  the work" in stderr, "the step was unwound"
    assert "Traceback" not in stderr


def test_streams_without_a_terminal() -> None:
    done = run("end")
    assert (done.returncode, done.stdout) == (0, "the result\n")
    assert re.fullmatch(r"ok {6}the work \(\d\.\d s\)\n", done.stderr)
    assert "\x1b" not in done.stdout + done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "end", "--how", "flood"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(), cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 1
    assert b"Traceback" not in stderr
    assert b"BrokenPipe" not in stderr


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (("--help",), set()),
        (("--version",), set()),
        (("health", "--help"), {"pydantic"}),  # typer itself converts values with it
        (("deploy", "--help"), {"pydantic"}),
    ],
)
def test_help_imports_nothing_heavy(argv: tuple[str, ...], allowed: set[str]) -> None:
    code = (
        "import sys\n"
        "from mistudio_ops.cli.app import app\n"
        "try:\n    app(sys.argv[1:], prog_name='mistudio-ops')\n"
        "finally:\n    sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = call([sys.executable, "-c", code, *argv], ROOT)
    assert done.returncode == 0
    assert set(done.stderr.split()) & HEAVY <= allowed


def test_completion_imports_nothing_heavy_and_knows_verbs_options_and_environments(tmp_path: Path) -> None:
    (tmp_path / "mistudio.toml").write_text("[environments.lab]\n")
    for words, expected in (
        ("he", {"health"}),
        ("health --wa", {"--wait", "--watch"}),
        ("health l", {"lab", "local"}),
        ("config ", {"show", "check", "render"}),
    ):
        line = f"mistudio-ops {words}"
        asked = {
            "_MISTUDIO_OPS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1),
        }  # fmt: skip
        done = call([sys.executable, "-m", "mistudio_ops"], tmp_path, **asked)
        assert set(done.stdout.split()) == expected
        assert done.stderr == ""


def test_a_broken_file_does_not_disturb_completion(tmp_path: Path) -> None:
    (tmp_path / "mistudio.toml").write_text("= broken")
    asked = {"_MISTUDIO_OPS_COMPLETE": "complete_bash", "COMP_WORDS": "mistudio-ops health l", "COMP_CWORD": "2"}
    done = call([sys.executable, "-m", "mistudio_ops"], tmp_path, **asked)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def at_a_terminal(*argv: str, **extra: str) -> str:
    """Return what a terminal would be sent: stdout and stderr are one, 80 columns wide."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *argv], stdin=slave, stdout=slave, stderr=slave, env=environ(COLUMNS="80", **extra), cwd=ROOT
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux says EIO when the last writer has gone
                break
            if not chunk:
                break
            written += chunk
    os.close(master)
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_gets_colour_and_no_color_none() -> None:
    coloured = at_a_terminal("end")
    assert "\x1b[32m" in coloured
    assert "the result" in coloured
    without = at_a_terminal("end", NO_COLOR="1")
    assert "\x1b[3" not in without
    assert "the result" in without


def test_dumb_terminals_and_plain_get_no_escape_at_all() -> None:
    assert "\x1b" not in at_a_terminal("end", TERM="dumb")
    assert "\x1b" not in at_a_terminal("end", "--plain")


def test_json_at_a_terminal_is_still_one_document_on_stdout() -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        [*PROGRAM, "end", "--json"],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environ(),
        cwd=ROOT,
        timeout=30,
        check=True,
    )
    os.close(slave)
    os.close(master)
    assert json.loads(done.stdout)["ok"] is True
