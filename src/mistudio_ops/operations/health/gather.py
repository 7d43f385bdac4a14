"""Gathering the facts of an environment that the process engine deployed here."""

import sys
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.sizing import WORKER_CONNECTIONS
from mistudio_ops.domain.variables import server_variables
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.engines.nginx import local_url
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.health.facts import Facts, UnitFact
from mistudio_ops.operations.status import status


class NotDeployedError(OpsError):
    """There is nothing to check yet."""

    code = "not_deployed"


def gather_facts(environment: Environment) -> Facts:
    """Return what the checks need, from the files that a deploy left.

    Raises:
        NotDeployedError: there are none.
        OpsError: they cannot be read.
    """
    try:
        secrets = read_secrets(environment.paths.secrets)
    except PermissionError as error:
        raise OpsError(
            f"{environment.paths.secrets} belongs to somebody else", hint="run this as the user who deployed"
        ) from error
    if secrets is None:
        raise NotDeployedError(
            f"environment {environment.name} is not deployed: {environment.state_dir} holds no secrets of it",
            hint=f"mistudio-ops deploy {environment.name}",
        )
    numbers = range(1, environment.backends + 1)
    return Facts(
        environment=environment,
        proxy_url=local_url(environment),
        backends={f"backend-{number}": f"http://127.0.0.1:{environment.backend_port(number)}" for number in numbers},
        variables=server_variables(environment, secrets),
        units=lambda: _units(environment),
        python=Path(sys.executable),
        worker_connections=WORKER_CONNECTIONS,
    )


def _units(environment: Environment) -> list[UnitFact]:
    units = status(environment, memory=lambda _: None).units
    return [UnitFact(unit.name, unit.state, unit.state in {"RUNNING", "STARTING"}, unit.restarts) for unit in units]
