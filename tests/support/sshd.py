"""A real OpenSSH server for a test: our own keys, configuration and folder, on loopback, as the current user."""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_port

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
LogLevel ERROR
"""


def find_sshd() -> str | None:
    """Return the server's path; it must be absolute, because it starts itself again for each connection."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Sshd:
    """A running server. ``home`` is a home folder whose ``.ssh`` knows it, and a key that it lets in."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]
    user: str

    @property
    def home(self) -> Path:
        """HOME of the client."""
        return self.root / "home"

    @property
    def known_hosts(self) -> Path:
        """Where the client knows it from."""
        return self.home / ".ssh" / "known_hosts"

    def url(self, folder: Path, *, port: int | None = None) -> str:
        """Return the URL of a folder of this machine."""
        return f"ssh://{self.user}@127.0.0.1:{port or self.port}{folder}"

    def trust(self, port: int | None = None) -> None:
        """Let the client know its key, at a proxy's port too."""
        key = (self.root / "host_key.pub").read_text()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port or self.port} {key}")

    def stop(self) -> None:
        """End it, and the sessions that it still has."""
        self.process.terminate()
        self.process.wait(10)


def start_sshd(root: Path, program: str, user: str) -> Sshd:
    """Start a server below ``root``, and wait until it listens."""
    (root / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    make_key(root / "host_key")
    make_key(root / "home" / ".ssh" / "id_ed25519")
    shutil.copy(root / "home" / ".ssh" / "id_ed25519.pub", root / "authorized_keys")
    port = free_port()
    (root / "sshd_config").write_text(_CONFIG.format(port=port, root=root))
    if os.geteuid() == 0:  # where the package's start script would have made it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (root / "sshd.log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(root / "sshd_config")], stderr=log, stdout=log)
    server = Sshd(root, port, process, user)
    _wait(server)
    server.trust()
    return server


def make_key(path: Path) -> None:
    """Make an SSH key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _wait(server: Sshd) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            if server.process.poll() is not None:
                break
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"sshd did not start: {(server.root / 'sshd.log').read_text()}")
