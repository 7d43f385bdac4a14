"""``mistudio-ops config show|check|render``."""

from enum import StrEnum
from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app("Show, check or render the configuration.")


class Rendered(StrEnum):
    """Files that a deploy makes of an environment; that of pgBackRest is for the operator to install."""

    ENV = "env"
    NGINX = "nginx"
    SUPERVISORD = "supervisord"
    PGBACKREST = "pgbackrest"


@verb(app, schema="mistudio-ops/config-show/1", codes=(ExitCode.OK,))
def show(
    invocation: Invocation,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
) -> None:
    """Print an environment as it is resolved: flags, then MISTUDIO_* variables, then mistudio.toml, then defaults.

    Secrets are masked.
    """
    from mistudio_ops.operations.config_show import show_configuration
    from mistudio_ops.presentation.configuration import shown_result

    invocation.reporter.result(shown_result(show_configuration(invocation.resolve()), origin=origin))


@verb(app, schema="mistudio-ops/config-check/1", codes={ExitCode.OK: "valid"}, environment="option")
def check(invocation: Invocation) -> None:
    """Check mistudio.toml: every key and value of every environment, and that they do not share ports or folders."""
    from mistudio_ops.operations.config_check import check_configuration
    from mistudio_ops.presentation.configuration import checked_result

    checked = check_configuration(environ=invocation.environ, cwd=invocation.cwd, config=invocation.options.config)
    invocation.resolve()  # the variables and flags that apply to the environment at hand
    for warning in checked.warnings:
        invocation.reporter.warning(warning)
    invocation.reporter.result(checked_result(checked))


@verb(app, schema="mistudio-ops/config-render/1", codes=(ExitCode.OK, ExitCode.PRECONDITION), environment="option")
def render(
    invocation: Invocation, *, what: Annotated[Rendered, typer.Argument(help="env, nginx, supervisord or pgbackrest.")]
) -> None:
    """Print a file that a deploy would make of an environment. Secrets are masked; nothing is written.

    pgbackrest is the configuration of point-in-time recovery, which an operator may install; it says how.
    """
    from mistudio_ops.operations.config_render import render_configuration
    from mistudio_ops.presentation.blocks import Raw
    from mistudio_ops.presentation.reporter import Result

    text = render_configuration(invocation.environment(), what.value)
    data = {"what": what.value, "text": text}
    invocation.reporter.result(Result("mistudio-ops/config-render/1", data, (Raw(text),)))
