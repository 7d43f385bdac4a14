"""``mistudio-ops``: the verbs, and the one place where errors become exit codes."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from mistudio_ops.cli.context import CommonOptions, Session
from mistudio_ops.cli.lazy import LazyGroup, Verb
from mistudio_ops.errors import ExitCode, OpsError

if TYPE_CHECKING:
    from mistudio_ops.presentation.reporter import ErrorReport, Reporter

PROGRAM = "mistudio-ops"
#: The completion scripts set it to ask for completions.
COMPLETE_VARIABLE = "_MISTUDIO_OPS_COMPLETE"
ERROR_SCHEMA = "mistudio-ops/error/1"
VERBS: Mapping[str, Verb] = {
    "deploy": Verb("mistudio_ops.cli.deploy", "Install, migrate, start and verify an environment."),
    "status": Verb("mistudio_ops.cli.status", "Show the units: what runs, since when, how often restarted."),
    "health": Verb("mistudio_ops.cli.health", "Check that everything works; exit 1 if anything does not."),
    "logs": Verb("mistudio_ops.cli.logs", "Show or follow the logs of units."),
    "down": Verb("mistudio_ops.cli.down", "Stop an environment; with --purge remove its files."),
    "backup": Verb("mistudio_ops.cli.backup", "Make backups, list and verify them, keep and copy them."),
    "doctor": Verb("mistudio_ops.cli.doctor", "Look at this machine: what a deploy needs, and what is missing."),
    "restore": Verb("mistudio_ops.cli.restore", "Put a backup in the place of the database; undo, resume, abort."),
    "init": Verb("mistudio_ops.cli.init", "Write a commented mistudio.toml."),
    "config": Verb("mistudio_ops.cli.config", "Show, check or render the configuration."),
    "version": Verb("mistudio_ops.cli.version", "Print the version of this program and of what it uses."),
    "generate": Verb("mistudio_ops.cli.generate", "Write docs/CLI.md and the completions.", hidden=True),
}


class TerminatedError(OpsError):
    """SIGTERM arrived; what was begun was undone or left resumable by the operation itself."""

    code = "terminated"
    exit_code = ExitCode.TERMINATED


class InterruptedByUserError(OpsError):
    """Ctrl-C."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED


class RootGroup(LazyGroup):
    """The program. Its ``main`` reports every error and exits with the code that belongs to it."""

    verbs: ClassVar[Mapping[str, Verb]] = VERBS

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, report, and exit (``SystemExit``)."""
        del complete_var, standalone_mode, windows_expand_args
        if COMPLETE_VARIABLE in os.environ:
            from typer._completion_classes import completion_init

            completion_init()
        argv = list(sys.argv[1:] if args is None else args)
        session = Session()
        run = super().main

        def parse_and_run() -> Any:
            return run(argv, prog_name or PROGRAM, standalone_mode=False, obj=session, **extra)

        sys.exit(guard(parse_and_run, session, argv))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Ctrl-C is named here: further out it would be just a number."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedByUserError("interrupted") from None


def guard(run: Callable[[], Any], session: Session, argv: Sequence[str]) -> int:
    """Return the exit code of ``run()``, after reporting what it raised. The one mapping of errors to exit codes."""
    code = ExitCode.OK.value
    error: BaseException | None = None
    try:
        with _termination_raises():
            value = run()
            code = value if isinstance(value, int) else 0
    except BrokenPipeError:
        return _reader_is_gone()
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - the outermost frame of the program
        error = raised
    try:
        return _finish(session, argv, error, code)
    except BrokenPipeError:
        return _reader_is_gone()


def _finish(session: Session, argv: Sequence[str], error: BaseException | None, code: int) -> int:
    reporter = session.reporter
    if error is not None:
        reporter = reporter or session.begin(_options_in(argv), ERROR_SCHEMA)
        code = _report(error, reporter, verbose=session.verbose)
    if reporter is not None:
        reporter.close()
    return code


def _report(error: BaseException, reporter: "Reporter", *, verbose: bool) -> int:
    from mistudio_ops.presentation.reporter import ErrorReport

    if verbose and not isinstance(error, typer.BadParameter):
        import traceback

        reporter.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, OpsError):
        reporter.error(ErrorReport.of(error))
        return error.exit_code
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        reporter.error(ErrorReport("interrupted", "interrupted"))
        return ExitCode.INTERRUPTED
    if hasattr(error, "format_message"):  # typer's own: wrong options and arguments
        reporter.error(_usage_report(error))
        return ExitCode.USAGE
    known = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = None if verbose else "run it again with -v for the traceback"
    reporter.error(ErrorReport("unexpected", f"unexpected {known}", hint, ErrorReport.of(error).causes))
    return ExitCode.FAILED


def _usage_report(error: Any) -> "ErrorReport":
    from mistudio_ops.presentation.reporter import ErrorReport

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    message = str(error.format_message()).strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        return ErrorReport("usage", f"{path} needs a command", f"{path} --help")
    return ErrorReport("usage", message[:1].lower() + message[1:], f"{path} --help")


def _options_in(argv: Sequence[str]) -> CommonOptions:
    """Read what decides how to report, when the command line could not be parsed."""
    before = argv[: argv.index("--")] if "--" in argv else argv
    return CommonOptions(
        json="--json" in before, plain="--plain" in before, verbose="-v" in before or "--verbose" in before
    )


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that operations clean up and the code is 143."""

    def terminate(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        raise TerminatedError("terminated by SIGTERM")

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: whoever embeds us handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reader_is_gone() -> int:
    """``mistudio-ops ... | head``: say nothing more, and keep the interpreter's own flush from complaining."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.FAILED.value


app = typer.Typer(
    cls=RootGroup, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Deploy, check and look after MiStudio.",
    epilog="Exit codes: 0 ok, 1 failed or unhealthy, 2 usage or configuration, 3 done in part, 10 not found, "
    "11 locked, 12 verification failed, 13 precondition, 14 deploy failed and the previous "
    "release serves, 130/143 interrupted. 'mistudio-ops COMMAND --help' says which a command uses.",
)  # fmt: skip


def _print_version(value: bool) -> None:
    if value:
        from mistudio_ops import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
]


@app.callback()
def root(version: VersionOption = False) -> None:
    """Deploy, check and look after MiStudio."""
    del version


def main() -> None:
    """Entry point of the console script."""
    app(prog_name=PROGRAM)
