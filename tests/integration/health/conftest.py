"""Facts about this test's own database and store, with small stand-ins for the HTTP servers and the program."""

import json
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mistudio_ops.domain.environment import Environment
from mistudio_ops.operations.health.facts import Facts, UnitFact
from mistudio_server.settings import Settings
from tests.support.servers import free_port

PAGE = "<!doctype html><title>miStudio</title>"
HEALTHY = {"status": "healthy", "release": "r0001", "checks": {}}


def healthy(instance: str, **more: Any) -> tuple[int, str, str]:
    """Return the answer of a healthy backend: status, content type, body."""
    return 200, "application/json", json.dumps(HEALTHY | {"instance": instance} | more)


class StandIn(ThreadingHTTPServer):
    """Answers every path with what ``answers`` says; the address is known before it is asked."""

    daemon_threads = True

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        super().__init__(("127.0.0.1", 0), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop answering."""
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        status, kind, body = self.server.answers.get(self.path, (404, "text/plain", "not found"))
        self.send_response(status)
        self.send_header("Location" if 300 <= status < 400 else "Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., StandIn]]:
    servers: list[StandIn] = []

    def start(**answers: tuple[int, str, str]) -> StandIn:
        named = {"/api/health" if name == "api" else "/": answer for name, answer in answers.items()}
        servers.append(StandIn(named))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """URL of a server that accepts and never says a word (the kernel accepts; nobody reads)."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def babbling() -> Iterator[str]:
    """URL of a server that answers every connection with bytes that are no protocol's."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def babble() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"\x00\x01\x02 what?\r\n" * 20)

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def dripping() -> Iterator[str]:
    """URL of a server that never stops sending, a byte at a time."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        thread.join(5)


@pytest.fixture
def refusing() -> str:
    """URL at which nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Make a stand-in for the interpreter that runs ``mistudio_server``: ``argv`` holds the verb and its options."""

    def make(body: str) -> Path:
        path = tmp_path / "program"
        head = f"#!{sys.executable} -I\nimport json, os, sys, time\nargv = sys.argv[4:]\n"
        path.write_text(head + textwrap.dedent(body))
        path.chmod(0o755)
        return path

    return make


ANSWER = json.dumps({"instance": "worker-1", "release": "r0001", "pid": 7, "running": ["trn_1"]})
WORKING = f"""
worker = {{"name": "worker", "ok": True, "latency_ms": 12.3, "evidence": {ANSWER!r}}}
migrations = {{"name": "migrations", "ok": True, "latency_ms": 4.5, "evidence": "at 0001"}}
print(json.dumps({{"ok": True, "checks": [worker, migrations]}}))
"""


@pytest.fixture
def facts(settings: Settings, tmp_path: Path, serve: Callable[..., StandIn], program: Callable[[str], Path]) -> Facts:
    """Facts of a healthy environment: one proxy, one backend, this test's database and the store."""
    proxy = serve(api=healthy("backend-1"), page=(200, "text/html; charset=utf-8", PAGE))
    backend = serve(api=healthy("backend-1"))
    return Facts(
        environment=Environment("local", tmp_path, backends=1, data_dir=settings.data_dir),
        proxy_url=proxy.url,
        backends={"backend-1": backend.url},
        variables={
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "REDIS_URL": settings.redis_url.get_secret_value(),
            "REDIS_WS_URL": settings.redis_ws_url.get_secret_value().replace("/0", "/1"),
            "DB_POOL_SIZE": "5",
            "DB_MAX_OVERFLOW": "10",
        },
        units=lambda: [UnitFact("proxy", "RUNNING", True, 0), UnitFact("backend-1", "RUNNING", True, 2)],
        python=program(WORKING),
    )


Vary = Callable[..., Facts]


@pytest.fixture
def vary(facts: Facts) -> Vary:
    """Return the facts with some of them, or some variables, different."""

    def varied(**changes: Any) -> Facts:
        variables = {key: value for key, value in changes.items() if key.isupper()}
        others = {key: value for key, value in changes.items() if not key.isupper()}
        return replace(facts, variables={**facts.variables, **variables}, **others)

    return varied
