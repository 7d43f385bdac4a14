"""PostgreSQL's own client programs, of the server's major version.

Older ones refuse a newer server; newer ones write settings that an older server rejects. So the programs are looked for
where they must fit, and otherwise nothing is done.
"""

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from mistudio_ops.drivers.database_access import Login

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Where pg_dump looks for its libraries and time zones must not depend on the operator's shell.
_CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Streams:
    """What a program reads and writes; ``files`` are descriptors that it is to have open as well."""

    stdin: int | IO[bytes] | None = None
    stdout: int | IO[bytes] | None = None
    stderr: int | IO[bytes] | None = None
    files: tuple[int, ...] = ()


NO_STREAMS = Streams()


class PgTools(Protocol):
    """The client programs of one major version, wherever they run.

    ``shares_files`` is True when they run on this machine, so that open files can be handed to them.
    """

    @property
    def version(self) -> str:
        """Full version, as in ``15.18``."""

    @property
    def place(self) -> str:
        """Where they are, for a person."""

    @property
    def shares_files(self) -> bool:
        """True when a file descriptor can be passed to them."""

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        login: Login,
        dbname: str,
        *,
        application: str,
        streams: Streams = NO_STREAMS,
    ) -> "subprocess.Popen[bytes]":
        """Start ``program`` in a process group of its own; it dies with us. Passwords go through its environment."""


@dataclass(frozen=True, slots=True)
class HostTools:
    """Programs in a folder of this machine."""

    folder: Path
    version: str
    shares_files: bool = field(default=True, init=False)

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        login: Login,
        dbname: str,
        *,
        application: str,
        streams: Streams = NO_STREAMS,
    ) -> "subprocess.Popen[bytes]":
        """Start it here."""
        return start_process(
            [str(self.folder / program), *arguments],
            _CLEAN | login.variables(dbname, application),
            streams,
        )


def start_process(
    argv: Sequence[str],
    environment: Mapping[str, str],
    streams: Streams = NO_STREAMS,
    *,
    popen: "type[subprocess.Popen[bytes]]" = subprocess.Popen,
) -> "subprocess.Popen[bytes]":
    """Start a program that the kernel kills when the thread that started it ends: keep that thread."""
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return popen(
        list(argv), env=dict(environment), stdin=subprocess.DEVNULL if streams.stdin is None else streams.stdin,
        stdout=streams.stdout, stderr=streams.stderr, pass_fds=streams.files, start_new_session=True,
        preexec_fn=die_with_parent, pipesize=1 << 20, cwd="/",
    )  # fmt: skip


def program_version(path: Path) -> str | None:
    """Return the version that a client program prints; None when it does not run."""
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=False, env=_CLEAN
        )
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", done.stdout)
    return match[1] if match and done.returncode == 0 else None
