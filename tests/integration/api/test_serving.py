"""The process itself, as a supervisor runs it: ready soon, SIGTERM ends it in time, its logs are JSON, it is small."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mistudio_server.settings import Settings
from tests.support.servers import free_port

pytestmark = pytest.mark.integration
TOKEN = "internal-token-of-the-test"


def variables(settings: Settings, **changes: str) -> dict[str, str]:
    """Return the environment of a unit."""
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "REDIS_WS_URL": settings.redis_ws_url.get_secret_value(),
        "REDIS_PREFIX": settings.redis_prefix,
        "DATA_DIR": str(settings.data_dir),
        "INTERNAL_TOKEN": TOKEN,
        "MISTUDIO_INSTANCE": "backend-7",
        "SHUTDOWN_GRACE_SECONDS": "3",
        **changes,
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mistudio_server", *arguments]


@dataclass
class Backend:
    """A running ``mistudio-server run``."""

    process: "subprocess.Popen[bytes]"
    port: int
    internal_port: int
    output: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def wait_ready(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            try:
                if self.get("/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        pytest.fail(self.output.read_text())


@pytest.fixture
def backend(settings: Settings, tmp_path: Path) -> Iterator[Backend]:
    port, internal_port, output = free_port(), free_port(), tmp_path / "log"
    environment = variables(settings, PORT=str(port), INTERNAL_PORT=str(internal_port))
    with output.open("wb") as log:
        process = subprocess.Popen(command("run"), env=environment, stdout=log, stderr=log, cwd=tmp_path)
    backend = Backend(process, port, internal_port, output)
    backend.wait_ready()
    yield backend
    process.kill()
    process.wait()


def test_serves_both_listeners_and_ends_on_sigterm(backend: Backend) -> None:
    assert backend.get("/api/health").json()["instance"] == "backend-7"
    assert backend.get("/metrics").status_code == 404
    internal = f"http://127.0.0.1:{backend.internal_port}"
    assert "mistudio_db_pool_size" in httpx.get(f"{internal}/metrics").text
    assert httpx.post(f"{internal}/internal/drain").status_code == 401
    backend.get("/api/v1/trainings")
    memory = psutil.Process(backend.process.pid).memory_info().rss
    assert memory < 140 << 20

    began = time.monotonic()
    backend.process.send_signal(signal.SIGTERM)
    assert backend.process.wait(10) == 0
    assert time.monotonic() - began < 5

    logs = backend.logs()
    assert {line["instance"] for line in logs} == {"backend-7"}
    access = [line for line in logs if line["event"] == "request"]
    assert [(line["path"], line["status"]) for line in access] == [("/metrics", 404), ("/api/v1/trainings", 200)]
    assert access[0]["request_id"].startswith("req_")
    assert access[0]["duration_ms"] > 0
    assert TOKEN not in backend.output.read_text()


def test_a_client_that_never_ends_its_request_does_not_hold_it_up(backend: Backend) -> None:
    with socket.create_connection(("127.0.0.1", backend.port)) as slow:
        slow.sendall(b"POST /api/v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        began = time.monotonic()
        backend.process.send_signal(signal.SIGTERM)
        assert backend.process.wait(10) == 0
        assert time.monotonic() - began < 3 + 2


def test_a_port_in_use_ends_it(backend: Backend, settings: Settings, tmp_path: Path) -> None:
    environment = variables(settings, PORT=str(backend.port), INTERNAL_PORT=str(free_port()))
    ended = subprocess.run(command("run"), env=environment, cwd=tmp_path, timeout=30, capture_output=True, check=False)
    assert ended.returncode == 1
    assert b"address already in use" in ended.stdout
