"""Who holds a TCP port of this machine."""

import errno
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port; unknown (None) when it is somebody else's and we are not root."""

    port: int
    pid: int | None = None
    command: str | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.command})"


def is_free(host: str, port: int) -> bool:
    """Return True when a server could listen on ``host``:``port`` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not count
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def holder(port: int) -> Holder:
    """Return who listens on ``port``."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline", "name"]):
        try:
            listening = any(
                c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp")
            )
        except psutil.Error:
            continue
        if listening:
            command = " ".join(process.info["cmdline"] or [process.info["name"]])[:120]
            return Holder(port, process.info["pid"], command)
    return Holder(port)
