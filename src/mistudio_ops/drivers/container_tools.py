"""PostgreSQL's client programs in the container that PostgreSQL itself runs in: they always fit.

``docker exec -i`` and never ``-t``: a terminal would turn each newline of a dump into two bytes. A program in a
container outlives the docker command that started it. So its session is known by its application name, and is ended
when a failed run cleans up, or when the next one begins: see ``snapshot.end_leftovers``.
"""

import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers import docker_cli
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.docker_cli import DockerCommandError
from mistudio_ops.drivers.pg_tools import NO_STREAMS, Streams, start_process
from mistudio_ops.errors import PreconditionError

POSTGRES_PORT = 5432
_VERSION = re.compile(r"\(PostgreSQL\) (\d+(?:\.\d+)*)")
#: ``docker exec`` that gets a SIGTERM ends with 0 and leaves the program behind (measured with 28.2). So a program that
#: succeeded says this instead, and 0 is not success.
SUCCESS = 57
_SAY = f'"$@"; code=$?; [ $code -ne 0 ] || code={SUCCESS}; exit $code'
#: What names a file of this machine, or guards a way that is not taken inside the container.
_OUTSIDE = ("ssl", "passfile", "service", "krb", "requiressl", "requirepeer")


@dataclass(frozen=True, slots=True)
class ContainerTools:
    """Programs below ``folder`` (None: on PATH) of a running container, whose server listens on ``port`` in it."""

    container: str
    folder: PurePosixPath | None
    version: str
    port: int = POSTGRES_PORT
    shares_files: bool = field(default=False, init=False)

    @property
    def place(self) -> str:
        """The container."""
        return f"container {self.container}"

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
        """Start it in there. Every value goes through the environment: an argument could be read by everybody."""
        refuse_files(streams.files)
        variables = container_variables(login, "127.0.0.1", self.port, dbname, application)
        argv = [
            docker_cli.program(), "exec", "-i", *by_name(variables), self.container, "sh", "-c", _SAY, "sh",
            str(self.folder / program) if self.folder else program, *arguments,
        ]  # fmt: skip
        return start_process(argv, docker_cli.cli_environment() | variables, streams, popen=_Exec)


class _Exec(subprocess.Popen[bytes]):
    """A ``docker exec`` whose exit status is that of the program inside; -15 when the command was told to end."""

    _own_code: int | None = None

    @property
    def returncode(self) -> int | None:
        """As everywhere: None while it runs."""
        code = self._own_code
        return {SUCCESS: 0, 0: -int(signal.SIGTERM)}.get(code, code) if code is not None else None

    @returncode.setter
    def returncode(self, code: int | None) -> None:
        self._own_code = code


def find_in_container(server_major: int, access: DatabaseAccess, _settings: BackupSettings) -> ContainerTools | str:
    """Return the programs in the database's container; without a configured container, say so.

    Raises:
        PreconditionError: the container is configured, and cannot be used; the message says why, the hint what to do.
    """
    if access.container is None:
        return "no database_container is configured"
    state = _running(access.container)
    port = published_port(state, access.owner)
    if port is None:
        raise PreconditionError(
            f"container {access.container} does not publish port {access.owner.port}, where the database is: "
            "this may be another database's container",
            hint="see docker port; correct database_container or database_url in mistudio.toml",
        )
    found = _programs(access.container, server_major)
    if not isinstance(found, ContainerTools):
        raise PreconditionError(
            f"the database is served by PostgreSQL {server_major}, and container {access.container} has {found}",
            hint=f"set database_container in mistudio.toml to the container that PostgreSQL {server_major} runs in",
        )
    return ContainerTools(access.container, found.folder, found.version, port)


def container_variables(login: Login, host: str, port: int, dbname: str, application: str) -> dict[str, str]:
    """Return libpq's variables for a program that reaches the server at ``host``:``port``, without our files."""
    options = {name: value for name, value in login.options.items() if not name.startswith(_OUTSIDE)}
    inside = Login(host, port, login.user, login.password, options)
    return inside.variables(dbname, application) | {"LC_ALL": "C.UTF-8"}


def by_name(variables: Mapping[str, str]) -> list[str]:
    """Return docker's options that hand these on by their names alone."""
    return [part for name in variables for part in ("--env", name)]


def refuse_files(pass_fds: Sequence[int]) -> None:
    """A program in a container has none of our open files.

    Raises:
        ValueError: some were to be handed on; the caller did not look at ``shares_files``.
    """
    if pass_fds:
        raise ValueError("open files cannot be handed into a container")


def published_port(state: Mapping[str, Any], login: Login) -> int | None:
    """Return the port inside the container that ``login`` reaches from outside; None when it leads elsewhere."""
    if str(state["HostConfig"].get("NetworkMode")) == "host":
        return login.port
    network = state["NetworkSettings"]
    for inside, places in (network.get("Ports") or {}).items():
        if any(str(place["HostPort"]) == str(login.port) for place in places or ()):
            return int(inside.partition("/")[0])
    addresses = {one.get("IPAddress") for one in (network.get("Networks") or {}).values()}
    return login.port if login.host in addresses - {"", None} else None


def _running(container: str) -> dict[str, Any]:
    state = docker_cli.inspect("container", container)
    if state is None:
        raise PreconditionError(
            f"there is no container {container}, which mistudio.toml names as database_container",
            hint="docker ps -a lists the containers; correct database_container, or remove it",
        )
    if not state["State"]["Running"] or state["State"].get("Paused"):
        word = state["State"].get("Status") or "stopped"
        raise PreconditionError(
            f"container {container}, which PostgreSQL runs in, is {word}",
            hint=f"docker {'unpause' if word == 'paused' else 'start'} {container}",
        )
    return state


def _programs(container: str, major: int) -> ContainerTools | str:
    """Return the programs of that major version in the container, or what was found instead."""
    found = []
    for folder in (None, PurePosixPath(f"/usr/lib/postgresql/{major}/bin"), PurePosixPath("/usr/local/bin")):
        version = _version(container, str(folder / "pg_dump") if folder else "pg_dump")
        if version is not None and int(version.split(".")[0]) == major:
            return ContainerTools(container, folder, version)
        found.append(version)
    others = sorted({version for version in found if version})
    return f"pg_dump {', '.join(others)}" if others else "no pg_dump"


def _version(container: str, program: str) -> str | None:
    try:
        match = _VERSION.search(docker_cli.run("exec", container, program, "--version"))
    except DockerCommandError as error:
        if "exec failed" in error.message or "no such file" in error.message or "not found" in error.message:
            return None
        raise
    return match[1] if match else None
