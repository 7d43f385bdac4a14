"""What must hold before a deploy changes anything. Every problem that is found is named, with its remedy."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.plan import Facts
from mistudio_ops.drivers.ports import holder, is_free
from mistudio_ops.drivers.processes import referring_to
from mistudio_ops.engines.host import Host
from mistudio_ops.engines.postgres import check_version
from mistudio_ops.errors import PreconditionError, UsageError

MINIMUM_FREE_BYTES = 1024**3
#: The units of a supervisord that was killed get a signal at once and may take this long to end (a worker writes a
#: checkpoint).
ORPHAN_SECONDS = 45.0


def preflight(
    environment: Environment,
    host: Host,
    facts: Facts,
    *,
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
) -> None:
    """Check everything that can be checked without changing anything.

    Raises:
        PreconditionError: ports, disk, versions or folders.
        UsageError: a configured DATABASE_URL or REDIS_URL leads nowhere.
    """
    _check_disk(environment, free_bytes)
    _check_data_dir(environment, host)
    if environment.database_url is None:
        check_version(environment.paths.postgres, host.found.postgres)
    _check_ports(environment, facts)
    _check_external(environment)


def _check_disk(environment: Environment, free_bytes: Callable[[Path], int]) -> None:
    contents = {environment.data: ("datasets and checkpoints", "MISTUDIO_DATA_DIR")}
    contents[environment.state_dir] = ("the database, logs and queues", "MISTUDIO_STATE_DIR")
    for wanted, (what, variable) in contents.items():
        folder = _existing(wanted)
        free = free_bytes(folder)
        if free < MINIMUM_FREE_BYTES:
            raise PreconditionError(
                f"{folder} has {free / 1024**2:.0f} MB free; a deploy needs {MINIMUM_FREE_BYTES / 1024**2:.0f} MB "
                f"there for {what}",
                hint=f"free some space, or set {variable} to a folder on another disk",
            )


def _check_data_dir(environment: Environment, host: Host) -> None:
    data = environment.data
    if data == environment.paths.data or not data.exists():
        return
    if not data.is_dir():
        raise PreconditionError(f"DATA_DIR {data} is not a folder", hint="set data_dir in mistudio.toml to a folder")
    status = data.stat()
    shift = 6 if status.st_uid == host.python.uid else 3 if status.st_gid == host.python.gid else 0
    if host.python.uid != 0 and not (status.st_mode >> shift) & 0o2:
        raise PreconditionError(
            f"DATA_DIR {data} cannot be written by {host.python.name}, who runs the backends and workers",
            hint=f"chown {host.python.name} {data}",
        )


def _check_ports(environment: Environment, facts: Facts) -> None:
    ports = {
        port: unit.name
        for unit in facts.wanted.units
        for port in unit.ports
        if not ((state := facts.present.get(unit.name)) is not None and state.pid is not None)
    }
    if facts.supervisor_pid is None:
        _wait_for_orphans(environment, tuple(ports))
    taken = [(port, name) for port, name in ports.items() if not is_free(_host(environment, name), port)]
    if taken:
        lines = [f"port {port} ({name}) is held by {holder(port)}" for port, name in taken]
        raise PreconditionError(
            "; ".join(lines),
            hint="stop that process, or choose another block of ports: MISTUDIO_PORT=N, or port = N in mistudio.toml "
            "(an environment uses N and some of the 50 ports after it)",
        )


def _host(environment: Environment, unit: str) -> str:
    if unit != "proxy":
        return "127.0.0.1"
    return "127.0.0.1" if environment.host == "localhost" else environment.host


def _wait_for_orphans(environment: Environment, ports: tuple[int, ...]) -> None:
    """Wait for units whose supervisord was killed: the kernel has told them to end."""
    if not environment.state_dir.is_dir() or all(is_free("127.0.0.1", port) for port in ports):
        return
    deadline = time.monotonic() + ORPHAN_SECONDS
    while referring_to(environment.state_dir) and time.monotonic() < deadline:
        time.sleep(0.2)


def _check_external(environment: Environment) -> None:
    if environment.database_url is not None:
        _check_database(environment.database_url)
    if environment.redis_url is not None:
        _check_redis(environment.redis_url)


def _check_database(url: str) -> None:
    import psycopg

    try:
        psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), connect_timeout=5).close()
    except (psycopg.Error, UnicodeError) as error:
        raise UsageError(
            f"database_url: cannot connect to {_without_password(url)}: {str(error).strip()}",
            hint="check host, port, user, password and database name: postgresql+psycopg://user:password@host:5432/name",
        ) from error


def _check_redis(url: str) -> None:
    import redis

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            client.ping()
    except (redis.exceptions.RedisError, ValueError) as error:
        raise UsageError(
            f"redis_url: no answer from {_without_password(url)}: {error}",
            hint="check host, port and password: redis://:password@host:6379/0",
        ) from error


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if at else ''}{place}"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
