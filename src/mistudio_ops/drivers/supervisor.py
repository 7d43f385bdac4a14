"""Talking to supervisord: XML-RPC over its unix socket. supervisord's own client is left out; it is slow to import."""

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: Faults of supervisord that mean "it is so already". http://supervisord.org/api.html
BAD_NAME = 10
ALREADY_STARTED = 60
NOT_RUNNING = 70
ALREADY_ADDED = 90
#: A stop waits for the unit: the longest allowed (worker, 40 s) and some.
TIMEOUT_SECONDS = 90.0
#: Longest path of a unix socket, in bytes, without its final NUL (sockaddr_un).
SOCKET_PATH_LIMIT = 107


class SupervisorGoneError(Exception):
    """Nobody answers on the socket."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of supervisord's. ``since`` is when it last started (seconds since 1970)."""

    name: str
    state: str
    pid: int | None
    since: float | None
    reason: str


class Supervisor(Protocol):
    """What the process engine needs of a supervisor."""

    def pid(self) -> int | None:
        """Return its process id, None when it does not run."""

    def processes(self) -> dict[str, ProcessInfo]:
        """Return what it looks after, by name; empty when it does not run."""

    def reload(self) -> None:
        """Read the configuration again: remove, replace and add programs. Starts none; stops none that stays."""

    def start(self, name: str) -> None:
        """Start one; a no-op when it runs. Does not wait for it to be ready."""

    def stop(self, name: str) -> None:
        """Stop one and wait for its end; a no-op when it does not run."""

    def signal(self, name: str, signal: str) -> None:
        """Send a signal such as HUP."""

    def shutdown(self) -> None:
        """End the supervisor with all that it looks after."""


class SupervisorClient:
    """The real one."""

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket_path

    def pid(self) -> int | None:
        """Return supervisord's process id, None when it does not answer."""
        try:
            return int(self._call("getPID"))
        except SupervisorGoneError:
            return None

    def processes(self) -> dict[str, ProcessInfo]:
        """Return its processes by name."""
        try:
            return {info["name"]: _process(info) for info in self._call("getAllProcessInfo")}
        except SupervisorGoneError:
            return {}

    def reload(self) -> None:
        """Make the programs those of the configuration file."""
        added, changed, removed = self._call("reloadConfig")[0]
        for name in (*changed, *removed):
            self.stop(name)
            self._call("removeProcessGroup", name, tolerate=BAD_NAME)
        for name in (*changed, *added):
            self._call("addProcessGroup", name, tolerate=ALREADY_ADDED)

    def start(self, name: str) -> None:
        """Start without waiting."""
        self._call("startProcess", name, False, tolerate=ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Stop and wait."""
        self._call("stopProcess", name, True, tolerate=NOT_RUNNING)

    def signal(self, name: str, signal: str) -> None:
        """Send a signal."""
        self._call("signalProcess", name, signal)

    def shutdown(self) -> None:
        """Ask supervisord to end."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: Any, tolerate: int | None = None) -> Any:
        # A proxy per call: they are not safe to share between threads, and a unix socket costs nothing.
        try:
            with xmlrpc.client.ServerProxy("http://supervisor", transport=_UnixTransport(self._socket)) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != tolerate:
                raise
            return None
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorGoneError(f"supervisord does not answer on {self._socket}: {error}") from error


def _process(info: dict[str, Any]) -> ProcessInfo:
    pid = int(info["pid"]) or None
    return ProcessInfo(
        name=str(info["name"]),
        state=str(info["statename"]),
        pid=pid,
        since=float(info["start"]) or None,
        reason=str(info["spawnerr"] or ("" if pid else info["description"])),
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # the base class closes it from here, also after a failure
        return connection
