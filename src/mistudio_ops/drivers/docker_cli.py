"""The ``docker`` command: the one way to run a program in a container with its streams connected to files of ours."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from mistudio_ops.errors import PreconditionError

#: An Engine that does not answer within this is taken for one that is down.
ANSWER_SECONDS = 20.0
#: What the command itself reads of the operator's environment: where the Engine is, and how to be let in.
_OWN = ("HOME", "PATH", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK")


class DockerCommandError(PreconditionError):
    """A docker command failed. ``message`` has what it said."""

    code = "docker"


def cli_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that the docker command runs with."""
    given = os.environ if environ is None else environ
    own = {name: value for name, value in given.items() if name in _OWN or name.startswith("DOCKER_")}
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8"} | own


def program() -> str:
    """Return the path of the docker command.

    Raises:
        DockerCommandError: there is none.
    """
    path = shutil.which("docker")
    if path is None:
        raise DockerCommandError("there is no docker command on this machine", hint="install Docker's command line")
    return path


def run(*arguments: str, seconds: float = ANSWER_SECONDS) -> str:
    """Run a docker command to its end and return what it printed.

    Raises:
        DockerCommandError: no command, no answer, or it failed; the message has its last words.
    """
    try:
        done = subprocess.run(
            [program(), *arguments], capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            stdin=subprocess.DEVNULL, env=cli_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DockerCommandError(
            f"the Docker Engine does not answer: docker {arguments[0]} took longer than {seconds:.0f} s",
            hint="docker info says whether it runs; systemctl restart docker starts it anew",
        ) from error
    if done.returncode != 0:
        raise _failure(arguments, done.stderr)
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """Return what the Engine knows of a ``container`` or ``image``; None when there is none of that name.

    Raises:
        DockerCommandError: the Engine does not answer.
    """
    try:
        (document,) = json.loads(run(kind, "inspect", "--", name))
    except DockerCommandError as error:
        if "no such" in error.message.lower():
            return None
        raise
    return dict(document)


def _failure(arguments: Sequence[str], said: str) -> DockerCommandError:
    reason = " ".join(said.split())[-400:] or "it said nothing"
    lowered = reason.lower()
    if "permission denied" in lowered and "sock" in lowered:
        return DockerCommandError(
            f"this account may not use the Docker Engine: {reason}",
            hint="run as root, or put the account into the group docker and log in again",
        )
    if any(word in lowered for word in ("cannot connect", "error during connect", "failed to connect")):
        return DockerCommandError(
            f"the Docker Engine does not answer: {reason}", hint="systemctl start docker; or set DOCKER_HOST"
        )
    return DockerCommandError(f"docker {arguments[0]} failed: {reason}")
