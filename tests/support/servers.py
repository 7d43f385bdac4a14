"""Real PostgreSQL and a Redis-compatible store for a test session, on loopback, in a folder that goes with it."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from mistudio_ops.drivers.account import PopenIdentity, service_account
from mistudio_ops.drivers.embedded import find_programs, reachable

START_TIMEOUT = 30.0
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class TestServers:
    """Starts both servers, and stops exactly what it started. ``durable``: PostgreSQL syncs, as in real use."""

    __test__ = False

    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mistudio-test-")))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    postgres_port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    durable: bool = False

    @property
    def postgres_url(self) -> str:
        """Superuser's URL of the maintenance database, driver named."""
        return f"postgresql+psycopg://mistudio:{self.password}@127.0.0.1:{self.postgres_port}/postgres"

    @property
    def redis_url(self) -> str:
        """URL of DB 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.redis_port}/0"

    def start(self) -> None:
        """Start both and wait until they answer."""
        self.account = service_account()
        self.programs = find_programs()
        self.root.chmod(0o755)
        self._start_postgres()
        self._start_store()
        self._wait()

    def stop(self) -> None:
        """Stop both and remove their files."""
        for process in reversed(self.processes):
            process.terminate() if process.args[0].endswith("server") else process.send_signal(2)  # type: ignore[index]
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def _identity(self) -> PopenIdentity:
        return self.account.popen()

    def _folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700)
        self.account.own(path)
        return path

    def _spawn(self, argv: list[str], cwd: Path) -> None:
        with (self.root / f"{Path(argv[0]).name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    argv, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self.account.popen()
                )
            )

    def _start_postgres(self) -> None:
        program = reachable(self.programs.postgres, self.account, self.root / "runtime")
        data, run = self._folder("postgres"), self._folder("run")
        password_file = run / "password"
        password_file.write_text(self.password)
        self.account.own(password_file)
        initdb = [
            str(program.path / "initdb"), "-D", str(data), "-U", "mistudio", "-A", "scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", f"--pwfile={password_file}",
        ]  # fmt: skip
        subprocess.run(initdb, check=True, capture_output=True, cwd=run, **self.account.popen())
        options = {
            "listen_addresses": "127.0.0.1", "port": self.postgres_port, "unix_socket_directories": str(run),
            "max_connections": 200, "max_locks_per_transaction": 256,
            **({"shared_buffers": "256MB", "max_wal_size": "4GB"} if self.durable else _FAST),
        }  # fmt: skip
        argv = [str(program.path / "postgres"), "-D", str(data)]
        self._spawn([*argv, *(f"--{key}={value}" for key, value in options.items())], run)

    def _start_store(self) -> None:
        program = reachable(self.programs.store, self.account, self.root / "runtime")
        data = self._folder("store")
        self._spawn(
            [
                str(program.path), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(data),
                "--save", "", "--requirepass", self.password,
            ],
            data,
        )  # fmt: skip

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.postgres_url.replace("+psycopg", ""), connect_timeout=2).close()
                client = redis.Redis.from_url(self.redis_url)
                client.ping()
                client.close()
            except (psycopg.OperationalError, redis.exceptions.RedisError):
                time.sleep(0.05)
            else:
                return
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.root.glob("*.log"))
        raise RuntimeError(f"test servers did not start within {START_TIMEOUT} s:\n{logs}")


def shared_environment(servers: TestServers) -> dict[str, str]:
    """Return the variables through which xdist's workers find the servers that the controller started."""
    return {"MISTUDIO_TEST_POSTGRES": servers.postgres_url, "MISTUDIO_TEST_REDIS": servers.redis_url}


def strip_environment() -> None:
    """Remove what would make a test depend on the machine that runs it."""
    kept = ("MISTUDIO_TEST_",)
    dropped = (
        "MISTUDIO_",
        "DATABASE_URL",
        "REDIS_",
        "DATA_DIR",
        "WEBSOCKET_EMIT_URL",
        "TRAINING_",
        "NO_COLOR",
        "COLUMNS",
    )
    for name in list(os.environ):
        if name.startswith(dropped) and not name.startswith(kept):
            del os.environ[name]
