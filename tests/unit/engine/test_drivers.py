"""Lock, journal, secrets, ports, files, process engine against fakes."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers.files import point_at, tail, write_atomically
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.drivers.lock import exclusive
from mistudio_ops.drivers.ports import holder, is_free
from mistudio_ops.drivers.processes import proportional_memory, referring_to
from mistudio_ops.drivers.secret_file import read_secrets, write_secrets
from mistudio_ops.drivers.supervisor import SupervisorClient
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import definition_file, run_file
from mistudio_ops.errors import LockedError, UsageError
from mistudio_ops.testing import FakeSupervisor

HOLD = """
import sys, time
from pathlib import Path
from mistudio_ops.drivers.lock import exclusive
with exclusive(Path(sys.argv[1]), "mistudio-ops deploy local"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError) as caught, exclusive(path, "second"):
            pass
        assert f"process {other.pid} (mistudio-ops deploy local), since 20" in caught.value.message
        other.send_signal(signal.SIGKILL)
        other.wait()
        begun = time.monotonic()
        with exclusive(path, "third"):
            assert time.monotonic() - begun < 1
            assert json.loads(path.read_text())["command"] == "third"
    with exclusive(path, "fourth"):
        pass


def test_a_lock_file_with_rubbish_still_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, "first"):
        path.write_text("{")
        with pytest.raises(LockedError, match="another process"), exclusive(path, "second"):
            pass


def test_the_journal_tells_what_a_killed_operation_was_at(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    operation = journal.begin("deploy", {"steps": []})
    with journal.step(operation, "prepare"):
        pass
    with pytest.raises(ZeroDivisionError), journal.step(operation, "broken"):
        raise ZeroDivisionError
    journal._run("INSERT INTO steps (operation, name, begun) VALUES (?, 'migrate', 'now')", (operation,))
    journal.close()

    found = Journal(tmp_path / "journal.sqlite3").interrupted("deploy")
    assert found is not None
    assert found.operation == operation
    assert found.done == ("prepare",)
    assert found.at == ("migrate",)


@pytest.mark.parametrize("outcome", ["done", "failed", "interrupted", "superseded"])
def test_an_operation_that_ended_is_not_interrupted(tmp_path: Path, outcome: str) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.end(journal.begin("deploy", {}), outcome)  # type: ignore[arg-type]
    assert journal.interrupted("deploy") is None
    journal.begin("down", {})
    assert journal.interrupted("deploy") is None
    journal.close()


def test_files_are_private_from_their_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    previous = os.umask(0)
    try:
        write_atomically(path, "x", mode=0o600)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_link_is_replaced_atomically(tmp_path: Path) -> None:
    point_at(tmp_path / "current", "r0001")
    point_at(tmp_path / "current", "r0002")
    assert (tmp_path / "current").readlink() == Path("r0002")


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\n" + b"".join(b"%d\n" % n for n in range(100)))
    assert tail(path, 2) == ["98", "99"]
    assert tail(path, 0) == []
    assert len(tail(path, 1000)) == 101
    assert tail(tmp_path / "none", 5) == []


def test_secrets_are_generated_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    assert read_secrets(path) is None
    path.write_text('{"internal_token": "mine"}')
    first = read_secrets(path)
    assert first is not None
    assert first.internal_token == "mine"
    assert len(set(first.all())) == 4
    write_secrets(path, first)
    assert read_secrets(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_damaged_secrets_are_an_error_not_new_passwords(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        read_secrets(path)
    assert path.read_text() == text


def test_who_holds_a_port() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        found = holder(port)
        assert found.pid == os.getpid()
        assert f"process {os.getpid()} (" in str(found)
    assert is_free("127.0.0.1", port)


def test_our_own_memory_and_a_process_that_is_gone() -> None:
    assert (proportional_memory(os.getpid()) or 0) > 5_000_000
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert proportional_memory(gone.pid) is None


@pytest.mark.parametrize("how", ["cwd", "argument", "environment"])
def test_processes_of_a_folder_are_found(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "state"
    other = tmp_path / "state-2"
    folder.mkdir()
    other.mkdir()
    argument = str(folder / "x") if how == "argument" else "x"
    cwd = folder if how == "cwd" else tmp_path
    env = {"MISTUDIO_UNIT_DIR": str(folder)} if how == "environment" else {}
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 30; :", argument], cwd=cwd, env=env, start_new_session=True
    ) as child:
        time.sleep(0.05)
        try:
            assert child.pid in {one.pid for one in referring_to(folder)}
            assert referring_to(other) == ()
        finally:
            os.killpg(child.pid, signal.SIGKILL)


def test_no_supervisor_is_not_an_error(tmp_path: Path) -> None:
    client = SupervisorClient(tmp_path / "none.sock")
    assert client.pid() is None
    assert client.processes() == {}


@pytest.fixture
def paths(tmp_path: Path) -> EnvironmentPaths:
    paths = EnvironmentPaths(tmp_path)
    for folder in (paths.config / "units", paths.config / "programs", paths.run / "units", paths.logs):
        folder.mkdir(parents=True)
    return paths


UNIT = Unit("backend-1", "backend", ("/bin/x",), {"SECRET": "hunter2"}, "/")


def started(paths: EnvironmentPaths, unit: Unit, pid: int) -> None:
    """What the launcher writes."""
    run_file(paths, unit.name).write_text(json.dumps({"digest": unit.digest, "group": pid}))


def test_a_unit_is_defined_before_it_is_started(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    ProcessEngine(paths, supervisor=fake).start(UNIT)
    assert fake.calls == ["reload", "start backend-1"]
    path = definition_file(paths, "backend-1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ProcessEngine(paths, supervisor=fake).definition("backend-1") == UNIT


def test_no_secret_reaches_supervisords_configuration(paths: EnvironmentPaths) -> None:
    ProcessEngine(paths, supervisor=FakeSupervisor(paths.config / "programs")).start(UNIT)
    for path in (paths.config / "programs").iterdir():
        assert "hunter2" not in path.read_text()


def test_a_unit_that_runs_as_wanted_is_left_alone(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    engine = ProcessEngine(paths, supervisor=fake)
    engine.start(UNIT)
    started(paths, UNIT, fake.processes()["backend-1"].pid or 0)
    fake.calls.clear()
    engine.start(UNIT)
    assert fake.calls == ["start backend-1"]  # a no-op of supervisord's


def test_a_unit_that_runs_with_an_older_definition_is_stopped_first(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    engine = ProcessEngine(paths, supervisor=fake)
    engine.start(UNIT)
    started(paths, UNIT, fake.processes()["backend-1"].pid or 0)
    fake.calls.clear()
    engine.start(Unit("backend-1", "backend", ("/bin/x",), {"SECRET": "new"}, "/"))
    assert fake.calls == ["stop backend-1", "start backend-1"]


def test_what_a_dead_process_ran_with_says_nothing_about_the_next(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    engine = ProcessEngine(paths, supervisor=fake)
    engine.start(UNIT)
    started(paths, UNIT, 999_999)
    assert engine.states()["backend-1"].digest is None


def test_shutdown_stops_those_who_ask_before_those_who_answer(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    engine = ProcessEngine(paths, supervisor=fake)
    for name, kind in (("postgres", "postgres"), ("redis", "redis"), ("worker-1", "worker"), ("proxy", "proxy")):
        engine.start(Unit(name, kind, ("/bin/x",), {}, "/"))  # type: ignore[arg-type]
    fake.calls.clear()
    engine.shutdown()
    assert fake.calls == ["stop proxy", "stop worker-1", "stop redis", "stop postgres", "shutdown"]


def test_a_removed_unit_leaves_no_definition(paths: EnvironmentPaths) -> None:
    fake = FakeSupervisor(paths.config / "programs")
    engine = ProcessEngine(paths, supervisor=fake)
    engine.start(UNIT)
    engine.remove("backend-1")
    assert engine.states() == {}
    assert list((paths.config / "units").iterdir()) == []
