"""The way through: deploy, health, a second deploy, a unit that dies, down, purge."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.studio import Studio, deployed_studio, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("studio")]

HEALTH_CHECKS = {"api", "frontend", "postgres", "redis", "worker"}
UNITS = ("postgres", "redis", "backend-1", "worker-1", "beat", "proxy")
BACK_WITHIN = 10.0


def test_every_check_is_green(studio: Studio) -> None:
    data = studio.json("health", "local")
    checks = {check["name"]: check for check in data["checks"]}
    assert set(checks) >= HEALTH_CHECKS
    assert [name for name, check in checks.items() if check["status"] == "fail"] == []


def test_a_second_deploy_changes_nothing(studio: Studio) -> None:
    before = {name: unit["pid"] for name, unit in studio.units().items()}
    answer = studio.ops("deploy", "local")
    assert {name: unit["pid"] for name, unit in studio.units().items()} == before
    assert "nothing" in (answer.stdout + answer.stderr).lower()


def test_all_listens_on_loopback_only(studio: Studio) -> None:
    for unit in studio.units().values():
        process = psutil.Process(unit["pid"])
        for member in [process, *process.children(recursive=True)]:
            for connection in member.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", (unit["name"], connection)


def test_internal_routes_are_not_proxied(studio: Studio) -> None:
    for path in ("/internal/events", "/internal/drain", "/metrics"):
        assert httpx.post(studio.url + path, json={}).status_code in {403, 404}, path


def test_what_holds_a_secret_is_readable_by_its_owner_only(studio: Studio) -> None:
    secrets = [
        value for value in json.loads((studio.state_dir / "secrets.json").read_text()).values() if len(value) > 8
    ]
    assert secrets
    holders = [path for path in _small_files(studio.state_dir) if any(secret in path.read_text() for secret in secrets)]
    assert len(holders) >= 2
    assert [path for path in holders if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_unit_is_back(studio: Studio, unit: str) -> None:
    before = studio.pid(unit)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: studio.pid(unit) != before, BACK_WITHIN, f"{unit} runs again")
    eventually(lambda: studio.ops("health", "local", check=False).returncode == 0, 2 * BACK_WITHIN, "healthy again")


def test_down_leaves_no_process_and_purge_no_file() -> None:
    with deployed_studio() as own:
        pids = [unit["pid"] for unit in own.units().values()]
        family = {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)} | set(pids)
        own.ops("down", "local")
        assert [pid for pid in family if psutil.pid_exists(pid)] == []
        assert _processes_of(own.state_dir) == []
        assert own.data_dir.is_dir()
        refused = own.ops("down", "local", "--purge", check=False)
        assert refused.returncode == 2
        assert own.data_dir.is_dir()
        own.ops("down", "local", "--purge", "--confirm", "local")
        assert not own.state_dir.exists()


def test_a_port_in_use_is_named_before_anything_is_made(studio: Studio) -> None:
    with tempfile.TemporaryDirectory(prefix="mst-") as folder:
        Path(folder).chmod(0o755)
        other = Studio(Path(folder) / "s", port=studio.port)
        refused = other.ops("deploy", "local", check=False)
        assert refused.returncode == 13
        assert str(studio.port) in refused.stderr
        assert not other.state_dir.exists()


def test_deploy_from_nothing_to_healthy_is_quick() -> None:
    """Catches a deploy that hangs; how long it takes is measured in docs/PERFORMANCE.md."""
    started = time.monotonic()
    with deployed_studio() as own:
        assert own.ops("health", "local", "--wait", "20").returncode == 0
        assert time.monotonic() - started < 60


def _small_files(folder: Path) -> list[Path]:
    """Return the text files below ``folder`` that are ours; the database and the store keep no secret in the clear."""
    found = []
    for path in folder.rglob("*"):
        inside = set(path.relative_to(folder).parts)
        if path.is_file() and path.stat().st_size < 1 << 20 and not inside & {"postgres", "redis", "runtime", "data"}:
            try:
                path.read_text()
            except UnicodeDecodeError:
                continue
            found.append(path)
    return found


def _processes_of(state_dir: Path) -> list[int]:
    return [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if str(state_dir) in " ".join(process.info["cmdline"] or [])
    ]
