"""A PostgreSQL of our own on a folder of data: on a private socket, for as long as a block lasts."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.database_access import Login
from mistudio_ops.errors import OpsError

_PORT = 5432
_STOP_SECONDS = 120.0
_LOG_LINES = 12


@contextmanager
def private_postgres(
    data: Path,
    programs: Path,
    account: Account,
    *,
    user: str,
    password: str,
    seconds: float,
    settings: dict[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Login]:
    """Start ``programs``/postgres on ``data`` and give a way in; it is shut down cleanly at the end of the block.

    It archives nothing, and nobody else can reach it. ``seconds`` is how long it may recover.

    Raises:
        OpsError: it does not come up; the message has the end of its log.
    """
    place = Path(tempfile.mkdtemp(prefix="mso-"))  # short: a socket's path has at most 107 bytes
    account.own(place)
    log = place / "log"
    options = {
        "listen_addresses": "", "unix_socket_directories": str(place), "port": str(_PORT), "archive_mode": "off",
        "logging_collector": "off", "hot_standby": "off", **(settings or {}),
    }  # fmt: skip
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *(f"--{key}={value}" for key, value in options.items())],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=data,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}, **account.popen(),
            )  # fmt: skip
        login = Login(str(place), _PORT, user, password, {})
        try:
            _wait(process, login, log, clock() + seconds, sleep, clock)
            yield login
        finally:
            _stop(process)
        if process.returncode != 0:
            raise OpsError(f"PostgreSQL on {data} did not shut down cleanly:\n{_tail(log)}")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _wait(
    process: "subprocess.Popen[bytes]",
    login: Login,
    log: Path,
    deadline: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    import psycopg

    while True:
        if process.poll() is not None:
            raise OpsError(f"PostgreSQL ended while it recovered:\n{_tail(log)}")
        try:
            login.connect("postgres").close()
        except psycopg.OperationalError as error:
            if clock() > deadline or "password authentication failed" in str(error):
                raise OpsError(f"PostgreSQL does not come up: {error}\n{_tail(log)}") from error
            sleep(0.1)
        else:
            return


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # fast: sessions end, data is flushed
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(f"    {line}" for line in lines)
