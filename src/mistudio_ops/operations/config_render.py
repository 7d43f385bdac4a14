"""``config render``: the files that a deploy would make, without their secrets."""

from collections.abc import Callable
from dataclasses import fields

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.variables import environment_file
from mistudio_ops.engines import nginx
from mistudio_ops.engines.host import inspect_host
from mistudio_ops.engines.layout import build_layout
from mistudio_ops.engines.state_files import current_release
from mistudio_ops.engines.supervisord import render_supervisord

#: Stands for each generated secret.
MASKED = "MASKED"


def render_configuration(environment: Environment, what: str) -> str:
    """Return the text of ``env``, ``nginx`` or ``supervisord`` for ``environment``.

    Raises:
        PreconditionError: nginx or another program that the text depends on is not installed.
    """
    return _RENDERERS[what](environment)


def _masked_secrets() -> SecretValues:
    return SecretValues(*(MASKED for _ in fields(SecretValues)))


def _env(environment: Environment) -> str:
    return environment_file(environment, _masked_secrets())


def _nginx(environment: Environment) -> str:
    version = inspect_host(environment).programs.nginx.version
    return nginx.render_config(environment, version, current_release(environment.paths) / "web")[0]


def _supervisord(environment: Environment) -> str:
    layout = build_layout(environment, inspect_host(environment), _masked_secrets(), release="", code="")
    parts = [render_supervisord(environment.paths, None)]
    parts += [render_supervisord(environment.paths, unit) for unit in layout.units]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


_RENDERERS: dict[str, Callable[[Environment], str]] = {"env": _env, "nginx": _nginx, "supervisord": _supervisord}
