"""What deploy, status and down show, to people and to programs."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mistudio_ops.domain.plan import plan_deploy
from mistudio_ops.domain.status import Status, UnitStatus
from mistudio_ops.operations.deploy.result import DeployResult
from mistudio_ops.operations.deploy.run import Timing
from mistudio_ops.operations.down import DownResult
from mistudio_ops.presentation.deployment import deploy_result, down_result
from mistudio_ops.presentation.json_document import json_value
from mistudio_ops.presentation.plain import PlainReporter
from mistudio_ops.presentation.reporter import Result
from mistudio_ops.presentation.unit_status import duration, status_result
from tests.unit.deploy.test_plan import deployed, fresh

RESULT = DeployResult(
    environment="local", url="http://127.0.0.1:8800", release="r0001", changed=True, dry_run=True,
    plan=plan_deploy(fresh()),
)  # fmt: skip
RUNNING = Status(
    environment="local", url="http://127.0.0.1:8800", state_dir="/srv", data_dir="/srv/data", running=True,
    release="r0001", deployed="2026-01-01T00:00:00+00:00", supervisor_pid=1, memory=400 * 1024**2,
    units=(
        UnitStatus("proxy", "RUNNING", 2, 59.0, memory=7 * 1024**2, ports=(8800,)),
        UnitStatus("beat", "RUNNING", 3, 3700.0, restarts=2, last_end="terminated by SIGKILL"),
    ),
)  # fmt: skip


def text_of(result: Result) -> str:
    out = io.StringIO()
    PlainReporter(out, io.StringIO()).result(result)
    return out.getvalue()


def test_a_dry_run_shows_every_step_and_what_it_waits_for() -> None:
    text = text_of(deploy_result(RESULT))
    for step in RESULT.plan.steps:
        assert step.title in text
    assert "nothing was changed (--dry-run)" in text
    assert "all before" in text


def test_programs_get_the_same_plan() -> None:
    data = json.loads(json.dumps(json_value(deploy_result(RESULT).data)))
    assert [step["name"] for step in data["plan"]["steps"]] == [step.name for step in RESULT.plan.steps]
    assert data["dry_run"] is True


def test_a_deploy_shows_the_time_of_each_step() -> None:
    done = replace(RESULT, dry_run=False, seconds=4.2, timings=(Timing("b", 1.0, 2.5), Timing("a", 0.0, 1.0)))
    text = text_of(deploy_result(done))
    assert "serves release r0001 at http://127.0.0.1:8800, in 4.2 s" in text
    assert text.index("\na ") < text.index("\nb ")


def test_nothing_to_change_is_said() -> None:
    for dry_run in (True, False):
        idle = replace(RESULT, plan=plan_deploy(deployed()), changed=False, dry_run=dry_run)
        assert "already; nothing to change" in text_of(deploy_result(idle))


def test_status_shows_restarts_and_how_the_unit_ended() -> None:
    result = status_result(RUNNING)
    text = text_of(result)
    assert result.ok
    assert "beat ended last by: terminated by SIGKILL" in text
    assert "2/2 units run, 400 MB in all" in text


@pytest.mark.parametrize("state", ["BACKOFF", "FATAL", "EXITED", "STOPPED"])
def test_a_unit_that_is_down_makes_status_fail(state: str) -> None:
    units = (*RUNNING.units, UnitStatus("worker-1", state))
    assert not status_result(replace(RUNNING, units=units)).ok


def test_an_environment_that_was_stopped_says_how_to_start_it() -> None:
    result = status_result(replace(RUNNING, running=False, units=()))
    assert not result.ok
    assert "mistudio-ops deploy local" in text_of(result)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.9, "59 s"), (61, "1 min 01 s"), (3700, "1 h 01 min"), (90000, "1 d 01 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_data_that_was_kept_is_named() -> None:
    kept = text_of(down_result(DownResult("local", ("proxy",), True, True, kept_data="/big/data")))
    assert "removed all its files" in kept
    assert "/big/data" in kept


def run(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(state), "MISTUDIO_STATE_DIR": str(state / "s")}
    return subprocess.run(
        [sys.executable, "-m", "mistudio_ops", *arguments], env=environ, cwd=state, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status",), 10),
        (("logs", "backend-1"), 10),
        (("down",), 10),
        (("down", "--purge"), 2),
        (("logs", "-f", "--json"), 2),
        (("deploy", "--nonsense"), 2),
    ],
)
def test_exit_codes_of_an_environment_that_is_not_there(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout)["ok"] is False
    else:
        assert "hint:" in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "s").exists()
