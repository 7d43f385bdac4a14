"""A studio of stand-in units: real supervisord, PostgreSQL, store and nginx; a server that starts in 30 ms."""

import http.client
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.units import UnitState
from mistudio_ops.drivers.http_probe import Answer, get
from mistudio_ops.engines.host import Host, inspect_host
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.operations.deploy import DeployResult, MigrationOptions, deploy
from mistudio_ops.operations.down import down
from mistudio_ops.presentation.recording import RecordingReporter

STAND_IN = Path(__file__).with_name("stand_in.py")
BLOCK = 50


def free_block() -> int:
    """Return a port that is free with the 49 after it, below the range that the kernel hands out by itself."""
    # At random, so that processes which test at the same time do not take the same one between look and use.
    for _ in range(1000):
        base = 20_000 + secrets.randbelow(240) * BLOCK
        if all(_free(base + offset) for offset in range(BLOCK)):
            return base
    raise RuntimeError("no free block of ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def request(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """GET with these headers (underscores for dashes); return status, headers in lower case, and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


@dataclass
class Studio:
    """One environment, and short ways to what tests do with it."""

    environment: Environment
    host: Host
    reporters: list[RecordingReporter] = field(default_factory=list)

    @property
    def engine(self) -> ProcessEngine:
        return ProcessEngine(self.environment.paths)

    @property
    def states(self) -> dict[str, UnitState]:
        return dict(self.engine.states())

    @property
    def reporter(self) -> RecordingReporter:
        """What the latest operation was told."""
        return self.reporters[-1]

    def deploy(
        self, *, dry_run: bool = False, migration: MigrationOptions | None = None, **server: str
    ) -> DeployResult:
        """Deploy with these variables added to the server's; they stay for the next deploy."""
        self.reporters.append(RecordingReporter())
        self.environment = replace(self.environment, server={**self.environment.server, **server})
        return deploy(self.environment, self.reporter, host=self.host, dry_run=dry_run, migration=migration)

    def down(self, **options: Any) -> None:
        self.reporters.append(RecordingReporter())
        down(self.environment, self.reporter, **options)

    def get(self, path: str) -> Answer | None:
        """GET through the proxy."""
        return get(f"{self.environment.url}{path}", timeout=5.0)


def new_studio() -> Studio:
    """Return an environment with a block of ports and a folder of its own; nothing is started."""
    parent = Path(tempfile.mkdtemp(prefix="ms-"))
    parent.chmod(0o755)
    environment = Environment(name="local", state_dir=parent / "s", port=free_block())
    server = (os.path.realpath(sys.executable), "-I", "-S", str(STAND_IN))
    return Studio(environment, replace(inspect_host(environment), server=server))


def end(studio: Studio) -> None:
    """Stop it, whatever state it is in, and remove its folder."""
    studio.engine.shutdown()
    shutil.rmtree(studio.environment.state_dir.parent)


@pytest.fixture
def studio() -> Iterator[Studio]:
    """Not deployed yet."""
    made = new_studio()
    try:
        yield made
    finally:
        end(made)


@pytest.fixture(scope="module")
def shared() -> Iterator[Studio]:
    """Deployed; shared by the tests of a module, which leave it running."""
    made = new_studio()
    try:
        made.deploy()
        yield made
    finally:
        end(made)
