"""The place of an environment on this machine: account, state directory, ports."""

import os
from collections.abc import Callable

from mistudio_ops.domain.check import Finding
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.account import Account, service_account
from mistudio_ops.drivers.ports import holder, is_free
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import check_state_dir


def account_finding(environment: Environment, account: Callable[[str | None], Account] = service_account) -> Finding:
    """Say who the servers would run as. As root with no such account it raises."""
    chosen = account(environment.run_as)
    if chosen.drop:
        return Finding.good(f"running as root; the servers run as {chosen.name}")
    return Finding.good(f"everything runs as {chosen.name}")


def state_dir_finding(environment: Environment) -> Finding:
    """Check that the state directory's path can be used, and that we may write there."""
    check_state_dir(environment.paths)
    folder = environment.state_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding.bad(
            f"{existing} is not writable, and {folder} is to be there",
            "set MISTUDIO_STATE_DIR (or state_dir in mistudio.toml) to a folder of yours",
        )
    return Finding.good(f"{folder}{'' if existing == folder else ' (will be made)'}")


def ports_finding(
    environment: Environment,
    *,
    free: Callable[[str, int], bool] = is_free,
    who: Callable[[int], object] = holder,
    deployed: Callable[[Environment], bool] | None = None,
) -> Finding:
    """Check that the ports of the environment are free, unless its own units hold them."""
    ports = needed_ports(environment)
    span = f"{min(ports)} to {max(ports)}"
    if (deployed or _runs)(environment):
        return Finding.good(f"{len(ports)} ports from {span} are in the hands of {environment.name}, which runs")
    for port, host in ports.items():
        if not free(host, port):
            return Finding.bad(
                f"port {port} is held by {who(port)}",
                f"stop it, or set port in mistudio.toml (MISTUDIO_PORT) to the start of a free block, "
                f"as {environment.port + 100}",
            )
    return Finding.good(f"{len(ports)} ports from {span} are free")


def needed_ports(environment: Environment) -> dict[int, str]:
    """Return the ports that the units will listen on, with their addresses."""
    loopback = "127.0.0.1"
    numbers = range(1, environment.backends + 1)
    ports = {environment.port: environment.host}
    ports |= {environment.backend_port(number): loopback for number in numbers}
    ports |= {environment.internal_port(number): loopback for number in numbers}
    if environment.database_url is None:
        ports[environment.postgres_port] = loopback
    if environment.redis_url is None:
        ports[environment.redis_port] = loopback
    return ports


def _runs(environment: Environment) -> bool:
    return ProcessEngine(environment.paths).supervisor_pid() is not None
