"""PostgreSQL's client programs in a container that is made for one command and goes with it.

The last resort: where neither the database's container nor this machine has programs of the server's major version. An
image that is not there is not fetched: that would take minutes at three in the night. The error says what to type.
"""

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers import docker_cli
from mistudio_ops.drivers.container_tools import by_name, container_variables, refuse_files
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.docker_cli import DockerCommandError
from mistudio_ops.drivers.pg_tools import NO_STREAMS, Streams, start_process
from mistudio_ops.errors import PreconditionError

#: Our containers carry it; its value says which process of which boot they were started by.
LABEL = "mistudio.tools"
_VERSION = re.compile(r"\(PostgreSQL\) (\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class ThrowawayTools:
    """Programs of an image that is present. They reach the server as this machine does."""

    image: str
    version: str
    shares_files: bool = field(default=False, init=False)

    @property
    def place(self) -> str:
        """The image."""
        return f"a container of {self.image}"

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
        """Start it in a container of its own."""
        refuse_files(streams.files)
        variables = container_variables(login, login.host, login.port, dbname, application)
        argv = [
            docker_cli.program(), "run", "--rm", "-i", "--network", "host", "--pull", "never",
            "--name", f"mistudio-tools-{secrets.token_hex(4)}", "--label", f"{LABEL}={_ourselves()}",
            *by_name(variables), "--entrypoint", program, self.image, *arguments,
        ]  # fmt: skip
        return start_process(argv, docker_cli.cli_environment() | variables, streams)


def find_throwaway(server_major: int, _access: DatabaseAccess, settings: BackupSettings) -> ThrowawayTools | str:
    """Return the programs of ``backup.tools_image``, or of ``postgres:MAJOR``; else what was found instead.

    Containers that a killed run left are removed first.

    Raises:
        PreconditionError: the image is configured, and cannot be used.
    """
    image = settings.tools_image or f"postgres:{server_major}"
    try:
        found = _look(server_major, image)
    except DockerCommandError as error:
        if settings.tools_image:
            raise
        return error.message
    if isinstance(found, str) and settings.tools_image:
        raise PreconditionError(f"backup.tools_image: {found}", hint=_hint(server_major, image))
    return found


def remove_left(alive: Callable[[str], bool] | None = None) -> list[str]:
    """Remove the containers of processes that are gone; return their names.

    Raises:
        DockerCommandError: the Engine does not answer.
    """
    alive = alive or _is_alive
    shown = f'{{{{.Names}}}} {{{{.Label "{LABEL}"}}}}'
    listing = docker_cli.run("ps", "-a", "--filter", f"label={LABEL}", "--format", shown)
    owners = dict(line.split(maxsplit=1) for line in listing.splitlines() if " " in line)
    left = [name for name, owner in owners.items() if not alive(owner)]
    for name in left:
        _remove(name)
    return left


def _remove(name: str) -> None:
    try:
        docker_cli.run("rm", "-f", name)
    except DockerCommandError as error:
        # It has just ended, and the Engine removes it by itself.
        if not any(told in error.message.lower() for told in ("already in progress", "no such container")):
            raise


def _look(server_major: int, image: str) -> ThrowawayTools | str:
    if docker_cli.inspect("image", image) is None:
        return f"the image {image} is not there (docker pull {image} fetches it)"
    remove_left()
    printed = docker_cli.run(
        "run", "--rm", "--network", "none", "--pull", "never", "--label", f"{LABEL}={_ourselves()}",
        "--entrypoint", "pg_dump", image, "--version",
    )  # fmt: skip
    match = _VERSION.search(printed)
    version = match[1] if match else "of no version"
    if version.split(".")[0] != str(server_major):
        return f"the image {image} has pg_dump {version}"
    return ThrowawayTools(image, version)


def _hint(server_major: int, image: str) -> str:
    return f"docker pull {image}; or set backup.tools_image to an image with PostgreSQL {server_major}"


def _ourselves() -> str:
    return f"{os.getpid()}.{_started(os.getpid())}"


def _is_alive(owner: str) -> bool:
    pid, _, started = owner.partition(".")
    return pid.isdigit() and bool(started) and _started(int(pid)) == started


def _started(pid: int) -> str | None:
    """Return when a process began, in clock ticks since the boot: its number alone is used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
