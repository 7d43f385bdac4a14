"""``config render``: the files that a deploy would make, without their secrets."""

from collections.abc import Callable
from dataclasses import fields

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.point_in_time import render_pgbackrest
from mistudio_ops.domain.release import next_id
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.variables import environment_file
from mistudio_ops.drivers.account import service_account
from mistudio_ops.drivers.embedded import find_programs
from mistudio_ops.drivers.releases import current_release
from mistudio_ops.engines import nginx
from mistudio_ops.engines.host import inspect_host
from mistudio_ops.engines.layout import build_layout
from mistudio_ops.engines.state_files import postgres_run
from mistudio_ops.engines.supervisord import render_supervisord
from mistudio_ops.operations.deploy.facts import web_folder

#: Stands for each generated secret.
MASKED = "MASKED"
_FIRST_RELEASE = next_id(())


def render_configuration(environment: Environment, what: str) -> str:
    """Return the text of ``env``, ``nginx``, ``supervisord`` or ``pgbackrest`` for ``environment``.

    Raises:
        PreconditionError: nginx or another program that the text depends on is not installed.
    """
    return _RENDERERS[what](environment)


def _masked_secrets() -> SecretValues:
    return SecretValues(*(MASKED for _ in fields(SecretValues)))


def _env(environment: Environment) -> str:
    return environment_file(environment, _masked_secrets())


def _nginx(environment: Environment) -> str:
    version = find_programs(prefer=environment.prefer).nginx.version
    release = current_release(environment.paths)
    web = web_folder(environment, release.id if release else _FIRST_RELEASE)
    return nginx.render_config(environment, version, web)[0]


def _supervisord(environment: Environment) -> str:
    layout = build_layout(environment, inspect_host(environment), _masked_secrets(), release="", code="")
    parts = [render_supervisord(environment.paths, None)]
    parts += [render_supervisord(environment.paths, unit) for unit in layout.units]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _pgbackrest(environment: Environment) -> str:
    account = service_account(environment.run_as)
    return render_pgbackrest(environment, postgres_run(environment.paths), account.name)


_RENDERERS: dict[str, Callable[[Environment], str]] = {
    "env": _env,
    "nginx": _nginx,
    "supervisord": _supervisord,
    "pgbackrest": _pgbackrest,
}
