"""A deployed studio: what is reachable, who may read what, and what happens when units are killed."""

import json
import os
import signal
import stat
import threading
import time
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest

from mistudio_ops.drivers import releases
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.engines import nginx
from mistudio_ops.errors import NothingFoundError, VerificationError
from mistudio_ops.operations.logs import follow, last_lines, log_units
from mistudio_ops.operations.status import status
from tests.integration.engine.conftest import Studio, request

pytestmark = pytest.mark.integration

UNITS = {"redis", "postgres", "backend-1", "backend-2", "backend-3", "worker-1", "beat", "proxy"}


def until(condition: object, seconds: float = 10.0) -> float:
    """Wait for a callable to be true; return how long it took."""
    begun = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() - begun < seconds, "it did not come about in time"
        time.sleep(0.05)
    return time.monotonic() - begun


def all_run(studio: Studio) -> bool:
    states = studio.states
    return set(states) == UNITS and all(state.state == "RUNNING" for state in states.values())


def test_all_units_run(shared: Studio) -> None:
    until(lambda: all_run(shared))
    found = status(shared.environment)
    assert found.release == "r0001"
    assert {unit.name for unit in found.units} == UNITS
    assert all(unit.memory for unit in found.units)
    assert found.units[0].ports == (shared.environment.port,)


def test_a_second_deploy_changes_nothing(shared: Studio) -> None:
    until(lambda: all_run(shared))
    before = {name: state.pid for name, state in shared.states.items()}
    result = shared.deploy()
    assert not result.changed
    assert shared.reporter.steps == []
    assert {name: state.pid for name, state in shared.states.items()} == before


def test_the_proxy_serves_the_page_with_its_headers(shared: Studio) -> None:
    code, headers, body = request(shared.environment.url + "/")
    assert code == HTTPStatus.OK
    assert "<title>MiStudio</title>" in body
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "nginx"
    for asset in ("style.css", "health.js", "favicon.svg"):
        assert request(f"{shared.environment.url}/{asset}")[0] == HTTPStatus.OK


@pytest.mark.parametrize(
    "path", ["/internal", "/internal/events", "/internal/drain", "/metrics", "/INTERNAL/../metrics"]
)
def test_what_is_internal_is_not_reachable(shared: Studio, path: str) -> None:
    answer = shared.get(path)
    assert answer is not None
    assert answer.status == HTTPStatus.NOT_FOUND


def test_requests_are_spread_over_all_backends(shared: Studio) -> None:
    until(lambda: all_run(shared))
    answers = [shared.get("/api/v1/x") for _ in range(12)]
    assert {json.loads(answer.body)["instance"] for answer in answers if answer} == {
        "backend-1", "backend-2", "backend-3",
    }  # fmt: skip


def received(shared: Studio, path: str, **headers: str) -> dict[str, str]:
    """Return the headers that a backend received."""
    _, _, body = request(shared.environment.url + path, **headers)
    return {name.lower(): value for name, value in json.loads(body)["headers"].items()}


@pytest.mark.parametrize(("given", "kept"), [("abc-12345678", True), ("x y; drop", False)])
def test_a_request_id_is_passed_on_or_made(shared: Studio, given: str, kept: bool) -> None:
    headers = received(shared, "/api/v1/x", X_Request_ID=given)
    assert (headers["x-request-id"] == given) is kept
    assert headers["x-request-id"]
    assert "upgrade" not in headers


def test_a_websocket_upgrade_reaches_the_backend(shared: Studio) -> None:
    headers = received(shared, "/socket.io/?EIO=4", Connection="Upgrade", Upgrade="websocket")
    assert headers["upgrade"] == "websocket"
    assert headers["connection"].lower() == "upgrade"


def test_a_forged_address_is_not_passed_on(shared: Studio) -> None:
    assert received(shared, "/api/v1/x", X_Forwarded_For="8.8.8.8")["x-forwarded-for"] == "127.0.0.1"


def test_polling_stays_with_its_backend(shared: Studio) -> None:
    until(lambda: all_run(shared))
    url = shared.environment.url + "/socket.io/?EIO=4&transport=polling"
    _, headers, body = request(url)
    cookie = headers.get("set-cookie", "").partition(";")[0]
    seen = {json.loads(body)["instance"], *(json.loads(request(url, Cookie=cookie)[2])["instance"] for _ in range(8))}
    assert len(seen) == 1


def test_secrets_are_readable_by_their_owner_only(shared: Studio) -> None:
    root = shared.environment.state_dir
    secrets = read_secrets(shared.environment.paths.secrets)
    assert secrets is not None
    holding = [path for path in root.rglob("*") if path.is_file() and _holds(path, secrets.all())]
    assert {path.name for path in holding} >= {"secrets.json", ".env.local", "store.conf", "backend-1.json"}
    for path in holding:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert path.suffix != ".log", path


def _holds(path: Path, secrets: tuple[str, ...]) -> bool:
    content = path.read_bytes()
    return any(secret.encode() in content for secret in secrets)


def test_no_secret_is_on_a_command_line(shared: Studio) -> None:
    secrets = read_secrets(shared.environment.paths.secrets)
    assert secrets is not None
    for state in shared.states.values():
        for process in (psutil.Process(state.pid), *psutil.Process(state.pid).children(recursive=True)):
            line = " ".join(process.cmdline())
            assert not any(secret in line for secret in secrets.all())


def test_nothing_said_holds_a_secret(shared: Studio) -> None:
    secrets = read_secrets(shared.environment.paths.secrets)
    assert secrets is not None
    said = repr([(r.steps, r.notes, r.warnings, r.outputs) for r in shared.reporters])
    journal = shared.environment.paths.journal.read_bytes()
    assert not any(secret in said or secret.encode() in journal for secret in secrets.all())
    assert shared.reporters[0].hidden >= set(secrets.all())


def test_sockets_and_data_are_private(shared: Studio) -> None:
    paths = shared.environment.paths
    for path in (paths.postgres, paths.redis, paths.run / "postgres", paths.run / "supervisor.sock", paths.logs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_servers_listen_on_loopback_only(shared: Studio) -> None:
    for state in shared.states.values():
        for connection in psutil.Process(state.pid).net_connections("tcp"):
            assert connection.laddr.ip == "127.0.0.1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_servers_do_not_run_as_root(shared: Studio) -> None:
    until(lambda: all_run(shared))
    states = shared.states
    for name in ("postgres", "redis", "proxy"):
        process = psutil.Process(states[name].pid)
        assert set(process.uids()) == {shared.host.account.uid}
        assert 0 not in (*process.gids(), *os.getgrouplist(shared.host.account.name, shared.host.account.gid))


def test_every_unit_is_back_within_ten_seconds_of_sigkill(shared: Studio) -> None:
    until(lambda: all_run(shared))
    before = {name: state.pid for name, state in shared.states.items()}
    counts = {unit.name: unit.restarts for unit in status(shared.environment).units}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        now = shared.states
        others = all(now[name].pid not in {None, pid} for name, pid in before.items())
        answer = shared.get("/api/health")
        return others and all_run(shared) and answer is not None and answer.status == HTTPStatus.OK

    assert until(back, 20) < 10
    after = {unit.name: unit for unit in status(shared.environment).units}
    for name, count in counts.items():
        assert after[name].restarts > count
    assert after["beat"].last_end == "terminated by SIGKILL"


def test_a_killed_nginx_leaves_no_worker_on_the_port(shared: Studio) -> None:
    until(lambda: all_run(shared))
    master = psutil.Process(shared.states["proxy"].pid)
    workers = master.children()
    assert workers
    master.kill()
    until(lambda: all_run(shared) and shared.states["proxy"].pid != master.pid)
    until(lambda: not any(worker.is_running() for worker in workers))
    assert nginx.served_generation(shared.environment) is not None


def test_a_broken_proxy_configuration_changes_nothing(shared: Studio) -> None:
    path = nginx.config_file(shared.environment)
    before = path.read_text()
    with pytest.raises(VerificationError, match="unknown directive"):
        nginx.install_config(shared.environment, shared.host.programs.nginx, shared.host.account, "nonsense on;\n")
    assert path.read_text() == before
    answer = shared.get("/api/health")
    assert answer is not None
    assert answer.status == HTTPStatus.OK


def test_the_release_record_is_complete(shared: Studio) -> None:
    release = releases.current_release(shared.environment.paths)
    assert release is not None
    assert release.schema == "0001"
    assert len(release.source.code) == 16
    assert release.source.python
    assert release.created.endswith("+00:00")
    page = releases.folder(shared.environment.paths, release.id) / "web" / "index.html"
    assert page.is_file()


def test_postgres_is_sized_for_a_small_board(shared: Studio) -> None:
    import psycopg  # noqa: PLC0415

    secrets = read_secrets(shared.environment.paths.secrets)
    assert secrets is not None
    dsn = f"host=127.0.0.1 port={shared.environment.postgres_port} user=mistudio dbname=mistudio"
    with psycopg.connect(dsn, password=secrets.database_password) as connection:
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in ("jit", "max_connections")}
    assert shown["jit"] == ("off",)
    assert shown["max_connections"] == ("75",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn, password="wrong")


def test_logs_of_units(shared: Studio) -> None:
    environment = shared.environment
    assert log_units(environment, ("backend",)) == ("backend-1", "backend-2", "backend-3")
    assert "backend-1 begins" in last_lines(environment, ("backend-1",), 50)["backend-1"]
    with pytest.raises(NothingFoundError, match="'nginx'") as caught:
        log_units(environment, ("nginx",))
    assert "proxy" in (caught.value.hint or "")


def test_following_a_log_through_a_restart(shared: Studio) -> None:
    until(lambda: all_run(shared))
    seen: list[tuple[str, str]] = []
    deadline = time.monotonic() + 10

    def going_on() -> bool:
        return ("worker-1", "worker-1 begins") not in seen and time.monotonic() < deadline

    def read() -> None:
        seen.extend(follow(shared.environment, ("worker-1",), going_on=going_on))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.3)
    os.kill(shared.states["worker-1"].pid or 0, signal.SIGKILL)
    reader.join(12)
    deadline = 0.0
    until(lambda: all_run(shared))
