"""Deploys that change something, deploys that fail, deploys that are killed, and going down."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Self

import psutil
import pytest

from mistudio_ops.domain.plan import Facts
from mistudio_ops.drivers import releases
from mistudio_ops.drivers.lock import exclusive
from mistudio_ops.drivers.processes import referring_to
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import marker
from mistudio_ops.errors import (
    LockedError,
    NothingFoundError,
    OpsError,
    PreconditionError,
    PreviousServesError,
    UsageError,
)
from mistudio_ops.operations.deploy.facts import gather
from mistudio_ops.operations.deploy.preflight import preflight
from tests.integration.engine.conftest import Studio, end, new_studio
from tests.integration.engine.test_running import all_run, until

pytestmark = pytest.mark.integration

# A deploy in a process of its own, so that it can be killed.
DEPLOY = """
import json, sys
from dataclasses import replace
from pathlib import Path
from typing import Self
from mistudio_ops.domain.environment import Environment
from mistudio_ops.engines.host import inspect_host
from mistudio_ops.operations.deploy import deploy
from mistudio_ops.presentation.plain import PlainReporter
given = json.loads(sys.argv[1])
environment = Environment(name="local", state_dir=Path(given["root"]), port=given["port"], server=given["server"])
host = replace(inspect_host(environment), server=tuple(given["argv"]))
deploy(environment, PlainReporter(sys.stdout, sys.stderr), host=host)
"""


def deploy_process(studio: Studio, **server: str) -> subprocess.Popen[str]:
    given = {
        "root": str(studio.environment.state_dir), "port": studio.environment.port, "argv": list(studio.host.server),
        "server": {**studio.environment.server, **server},
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", DEPLOY, json.dumps(given)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


class Prober(threading.Thread):
    """Asks the proxy as fast as it can, and keeps what went wrong."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self.studio = studio
        self.asked = 0
        self.failed: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            answer = self.studio.get("/api/v1/x")
            self.asked += 1
            if answer is None or answer.status != HTTPStatus.OK:
                self.failed.append(str(answer))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def level(studio: Studio) -> set[str]:
    """Return the LOG_LEVELs that backends answer with."""
    answers = [studio.get("/api/v1/x") for _ in range(9)]
    return {json.loads(answer.body)["level"] for answer in answers if answer is not None}


def test_new_configuration_rolls_without_a_failed_request(shared: Studio) -> None:
    until(lambda: all_run(shared))
    before = {name: state.pid for name, state in shared.states.items()}
    old = releases.current_release(shared.environment.paths)
    with Prober(shared) as prober:
        result = shared.deploy(LOG_LEVEL=f"debug-{time.monotonic_ns()}")
    assert result.changed
    assert prober.asked > 20
    assert prober.failed == []
    after = {name: state.pid for name, state in shared.states.items()}
    same = {name for name in before if before[name] == after[name]}
    assert same == {"postgres", "redis", "proxy"}
    new = releases.current_release(shared.environment.paths)
    assert old is not None
    assert new is not None
    assert new.id > old.id
    assert (releases.folder(shared.environment.paths, old.id) / "release.json").is_file()
    assert len(level(shared)) == 1


def test_a_backend_that_does_not_come_up_leaves_the_previous_release_serving(shared: Studio) -> None:
    until(lambda: all_run(shared))
    shared.deploy(LOG_LEVEL="good")
    old = releases.current_release(shared.environment.paths)
    good = shared.environment
    with Prober(shared) as prober, pytest.raises(PreviousServesError) as caught:
        shared.deploy(LOG_LEVEL="bad", STANDIN_BROKEN="backend-2")
    shared.environment = good
    assert prober.failed == []
    assert "backend-2 ends right after it starts" in caught.value.message
    assert "the stand-in is broken on purpose" in caught.value.message
    assert "mistudio-ops logs backend-2" in (caught.value.hint or "")
    assert releases.current_release(shared.environment.paths) == old
    assert ("take back: restart backend-1, wait until it is ready", "ok") in shared.reporter.steps
    shared.deploy()
    until(lambda: all_run(shared))
    assert level(shared) == {"good"}


def test_a_failed_migration_switches_nothing(shared: Studio) -> None:
    until(lambda: all_run(shared))
    good = shared.environment
    before = {name: state.pid for name, state in shared.states.items()}
    with pytest.raises(PreviousServesError, match="column mystery does not exist"):
        shared.deploy(STANDIN_MIGRATE="fail")
    shared.environment = good
    assert {name: state.pid for name, state in shared.states.items()} == before


def test_fewer_and_more_backends(shared: Studio) -> None:
    until(lambda: all_run(shared))
    three = shared.environment
    shared.environment = replace(three, backends=2)
    with Prober(shared) as prober:
        shared.deploy()
        assert "backend-3" not in shared.states
        shared.environment = replace(shared.environment, backends=3)
        shared.deploy()
    until(lambda: all_run(shared))
    assert prober.failed == []


def test_a_unit_that_was_stopped_is_started_again(shared: Studio) -> None:
    until(lambda: all_run(shared))
    shared.engine.stop("beat")
    result = shared.deploy()
    assert [step.name for step in result.plan.steps] == ["prepare", "beat", "verify"]
    until(lambda: all_run(shared))


def test_a_dry_run_changes_nothing(studio: Studio) -> None:
    result = studio.deploy(dry_run=True)
    assert result.changed
    assert result.dry_run
    assert not studio.environment.state_dir.exists()


def test_only_one_deploy_at_a_time(shared: Studio) -> None:
    lock = shared.environment.paths.lock
    with exclusive(lock, "mistudio-ops down local"), pytest.raises(LockedError, match="mistudio-ops down local"):
        shared.deploy()


def test_a_first_deploy_that_fails_stops_what_it_started_and_keeps_the_data(studio: Studio) -> None:
    good = studio.environment
    with pytest.raises(OpsError) as caught:
        studio.deploy(STANDIN_BROKEN="backend-3")
    assert not isinstance(caught.value, PreviousServesError)
    assert "backend-3 ends right after it starts" in caught.value.message
    assert referring_to(studio.environment.state_dir) == ()
    assert (studio.environment.paths.postgres / "PG_VERSION").is_file()
    assert releases.current_release(studio.environment.paths) is None
    studio.environment = good
    assert studio.deploy().release == "r0001"


def test_a_port_in_use_is_named_with_its_holder_before_anything_is_made(studio: Studio) -> None:
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", studio.environment.postgres_port))
        squatter.listen(1)
        with pytest.raises(PreconditionError) as caught:
            studio.deploy()
    assert (
        f"port {studio.environment.postgres_port} (postgres) is held by process {os.getpid()}" in caught.value.message
    )
    assert "MISTUDIO_PORT" in (caught.value.hint or "")
    assert not studio.environment.state_dir.exists()


def test_a_full_disk_is_refused_before_anything_is_made(studio: Studio) -> None:
    facts: Facts = gather(studio.environment, studio.host, ProcessEngine(studio.environment.paths)).facts
    with pytest.raises(PreconditionError, match="500 MB free; a deploy needs 1024 MB"):
        preflight(studio.environment, studio.host, facts, free_bytes=lambda _: 500 * 1024**2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"database_url": "postgresql+psycopg://me:hunter2@127.0.0.1:1/x"}, "database_url: cannot connect to"),
        ({"redis_url": "redis://:hunter2@127.0.0.1:1/0"}, "redis_url: no answer from"),
    ],
)
def test_a_wrong_url_is_a_usage_error_without_its_password(studio: Studio, changes: dict[str, str], said: str) -> None:
    studio.environment = replace(studio.environment, **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said) as caught:
        studio.deploy()
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    assert "127.0.0.1:1" in caught.value.message
    assert not studio.environment.state_dir.exists()


def test_lost_passwords_are_not_replaced_by_new_ones(studio: Studio) -> None:
    studio.deploy()
    studio.down()
    studio.environment.paths.secrets.unlink()
    with pytest.raises(PreconditionError, match=r"secrets\.json with its passwords is gone"):
        studio.deploy()


@pytest.mark.parametrize("after", ["supervisor", "initdb", "postgres", "migrate"])
def test_a_deploy_that_was_killed_is_taken_up_by_the_next(studio: Studio, after: str) -> None:
    journal = studio.environment.paths.journal
    with deploy_process(studio, STANDIN_MIGRATE_SECONDS="1.5") as killed:
        until(lambda: _begun(journal, after), 20)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    studio.deploy()
    assert any("was cut off during" in note for note in studio.reporter.notes)
    until(lambda: all_run(studio))
    assert not studio.deploy().changed
    assert [note for note in studio.reporter.notes if "cut off" in note] == []


def _begun(journal: Path, step: str) -> bool:
    import sqlite3  # noqa: PLC0415

    if not journal.exists():
        return False
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT 1 FROM steps WHERE name = ?", (step,)).fetchone() is not None
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()


def test_a_killed_supervisor_takes_its_units_along_and_deploy_brings_them_back(studio: Studio) -> None:
    studio.deploy()
    pids = [state.pid for state in studio.states.values() if state.pid]
    os.kill(studio.engine.supervisor_pid() or 0, signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    result = studio.deploy()
    assert result.release == "r0001"
    assert not result.plan.new_release
    until(lambda: all_run(studio))


def test_down_leaves_no_process_and_purge_no_file(studio: Studio) -> None:
    studio.deploy()
    everything = [process.pid for state in studio.states.values() for process in _family(state.pid or 0)]
    studio.down()
    assert not any(psutil.pid_exists(pid) for pid in everything)
    assert referring_to(studio.environment.state_dir) == ()
    assert (studio.environment.paths.postgres / "PG_VERSION").is_file()
    studio.down()  # again: nothing to stop is no error
    studio.down(purge=True, confirm="local")
    assert not studio.environment.state_dir.exists()
    with pytest.raises(NothingFoundError):
        studio.down()


def _family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


@pytest.fixture(scope="module")
def stopped() -> object:
    """A state directory with a marker and little else."""
    studio = new_studio()
    root = studio.environment.state_dir
    root.mkdir()
    marker(studio.environment.paths).write_text("{}")
    yield studio
    end(studio)


@pytest.mark.parametrize("confirm", [None, "", "production"])
def test_purge_needs_the_environments_name(stopped: Studio, confirm: str | None) -> None:
    with pytest.raises(UsageError, match="--purge removes the database") as caught:
        stopped.down(purge=True, confirm=confirm)
    assert "--confirm local" in (caught.value.hint or "")
    assert marker(stopped.environment.paths).is_file()


def test_purge_refuses_a_folder_with_strangers(stopped: Studio) -> None:
    stranger = stopped.environment.state_dir / "thesis.tex"
    stranger.write_text("mine")
    with pytest.raises(PreconditionError, match=r"thesis\.tex"):
        stopped.down(purge=True, confirm="local")
    assert stranger.read_text() == "mine"
    stranger.unlink()


def test_purge_keeps_data_outside_the_state_directory(studio: Studio) -> None:
    data = studio.environment.state_dir.parent / "data"
    data.mkdir()
    (data / "precious").write_text("x")
    studio.environment = replace(studio.environment, data_dir=data)
    studio.environment.state_dir.mkdir()
    marker(studio.environment.paths).write_text("{}")
    studio.down(purge=True, confirm="local")
    assert (data / "precious").is_file()


def test_a_folder_without_our_marker_is_never_purged(studio: Studio) -> None:
    studio.environment.state_dir.mkdir()
    (studio.environment.state_dir / "data").mkdir()
    with pytest.raises(NothingFoundError):
        studio.down(purge=True, confirm="local")
    assert (studio.environment.state_dir / "data").is_dir()
