"""Turning a function into a command: the shared options, and the exit codes in its help."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, get_type_hints

import typer
import typer.core

from mistudio_ops.cli.complete import environment_names
from mistudio_ops.cli.context import CommonOptions, Invocation, Session, one_environment
from mistudio_ops.errors import ExitCode

P = ParamSpec("P")
Verb = Callable[Concatenate[Invocation, P], ExitCode | None]
Names = Literal["argument", "option", "none"]

#: What a code means in general; a command may say it more precisely.
MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage or configuration",
    ExitCode.PARTIAL: "done in part",
    ExitCode.NOT_FOUND: "what was named does not exist",
    ExitCode.LOCKED: "somebody else works on this environment",
    ExitCode.VERIFICATION: "what was made does not pass its check",
    ExitCode.PRECONDITION: "the machine lacks something; nothing was changed",
    ExitCode.PREVIOUS_SERVES: "deploy failed, and the previous release serves",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.TERMINATED: "terminated (SIGTERM)",
}
_ALWAYS = (ExitCode.USAGE, ExitCode.INTERRUPTED, ExitCode.TERMINATED)

_ENV_HELP = "Environment; default: MISTUDIO_ENV, or local."
EnvArgument = Annotated[str | None, typer.Argument(metavar="ENV", help=_ENV_HELP, autocompletion=environment_names)]
_ENV_OPTION = typer.Option("-e", "--env", metavar="ENV", help=_ENV_HELP, autocompletion=environment_names)
EnvOption = Annotated[str | None, _ENV_OPTION]
_CONFIG_HELP = "mistudio.toml to use; default: MISTUDIO_CONFIG, or the one here or above."
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help=_CONFIG_HELP)]
_SET_HELP = "Set a key of the environment for this run, as in port=9000."
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PlainOption = Annotated[bool, typer.Option("--plain", help="No colour and no animation.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; tracebacks of unexpected errors.")]


def verb_app(
    help: str | None = None,
    *,
    invoke_without_command: bool = False,
    group: type[typer.core.TyperGroup] | None = None,
) -> typer.Typer:
    """Return the Typer application of one verb's module; ``cli.app`` loads it when the verb is used.

    ``group`` is the class of a verb with commands below it, as ``DefaultGroup``; its ``no_args_is_help`` is off.
    """
    if group is not None:
        app = typer.Typer(
            cls=group, help=help, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
        )
        app.callback()(lambda: None)  # with a callback one command, too, makes a group
        return app
    return typer.Typer(
        help=help, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
        no_args_is_help=not invoke_without_command and help is not None,
        invoke_without_command=invoke_without_command,
    )  # fmt: skip


def verb(
    app: typer.Typer,
    *,
    schema: str,
    codes: dict[ExitCode, str] | Sequence[ExitCode] = (ExitCode.OK, ExitCode.FAILED),
    environment: Names = "argument",
    name: str | None = None,
    hidden: bool = False,
) -> Callable[
    [Callable[Concatenate[Invocation, P], ExitCode | None]], Callable[Concatenate[Invocation, P], ExitCode | None]
]:
    """Register a function of ``(invocation, own parameters...)`` as a command.

    Args:
        app: where it is registered.
        schema: name of its JSON document's form, also used when it fails.
        codes: its exit codes, with their meaning where the general one does not say enough. 2, 130 and 143 are added.
        environment: whether ENV is an argument and an option, an option only, or not taken at all.
        name: of the command; default: the function's.
        hidden: leave it out of help and completion.

    The function's docstring is its help. It returns its exit code, None for 0.
    """

    def register(function: Verb[P]) -> Verb[P]:
        app.command(
            name or function.__name__.replace("_", "-"),
            help=inspect.getdoc(function),
            epilog=exit_code_text(codes),
            hidden=hidden,
        )(_command(function, schema, environment))
        return function

    return register


def exit_code_text(codes: dict[ExitCode, str] | Sequence[ExitCode]) -> str:
    """Return the list of exit codes that ends a command's help."""
    meanings = dict(codes) if isinstance(codes, dict) else {code: MEANINGS[code] for code in codes}
    for code in _ALWAYS:
        meanings.setdefault(code, MEANINGS[code])
    lines = [f"  {int(code):>3}  {meanings[code]}" for code in sorted(meanings)]
    return "\b\nExit codes:\n" + "\n".join(lines)


def _command(function: Callable[..., ExitCode | None], schema: str, environment: Names) -> Callable[..., Any]:
    own = list(inspect.signature(function).parameters.values())[1:]
    hints = get_type_hints(function, include_extras=True)

    def command(context: typer.Context, **values: Any) -> int:
        session = context.find_object(Session) or Session()
        options = _common_options(values)
        reporter = session.begin(options, schema)
        code = function(Invocation(reporter, options, session.environ, session.cwd), **values)
        return int(code or 0)

    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += _environment_parameters(environment)
    parameters += [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]) for parameter in own
    ]
    parameters += _common_parameters(environment)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = function.__doc__
    return command


def _option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _environment_parameters(environment: Names) -> list[inspect.Parameter]:
    return [_option("environment_argument", EnvArgument)] if environment == "argument" else []


def _common_parameters(environment: Names) -> list[inspect.Parameter]:
    about_environment = [
        _option("environment_option", EnvOption),
        _option("config_file", ConfigOption),
        _option("overrides", SetOption),
    ]
    output = [
        _option("json_output", JsonOption, default=False),
        _option("plain_output", PlainOption, default=False),
        _option("verbose_output", VerboseOption, default=False),
    ]
    return ([] if environment == "none" else about_environment) + output


def _common_options(values: dict[str, Any]) -> CommonOptions:
    """Take the shared options out of ``values``."""
    named = one_environment(values.pop("environment_argument", None), values.pop("environment_option", None))
    return CommonOptions(
        environment=named,
        config=values.pop("config_file", None),
        overrides=tuple(values.pop("overrides", None) or ()),
        json=values.pop("json_output"),
        plain=values.pop("plain_output"),
        verbose=values.pop("verbose_output"),
    )
