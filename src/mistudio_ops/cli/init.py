"""``mistudio-ops init``."""

from pathlib import Path
from typing import Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode

app = verb_app()

OutputOption = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Where; default: mistudio.toml.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
PrintOption = Annotated[bool, typer.Option("--print", help="Print it, write nothing.")]


@verb(
    app,
    schema="mistudio-ops/init/1",
    codes={ExitCode.OK: "written", ExitCode.FAILED: "it cannot be written", ExitCode.USAGE: "there is one already"},
    environment="none",
)
def init(
    invocation: Invocation, *, output: OutputOption = None, force: ForceOption = False, print_only: PrintOption = False
) -> None:
    """Write a commented mistudio.toml: every key, with its default."""
    from mistudio_ops.operations.init import example, write_example
    from mistudio_ops.presentation.blocks import Line, Raw
    from mistudio_ops.presentation.reporter import Result

    schema = "mistudio-ops/init/1"
    if print_only:
        text = example()
        invocation.reporter.result(Result(schema, {"path": None, "text": text}, (Raw(text),)))
        return
    path = write_example(invocation.cwd / (output or "mistudio.toml"), force=force)
    line = Line(f"{path} written; uncomment what you change, then: mistudio-ops config check", "good")
    invocation.reporter.result(Result(schema, {"path": path, "text": None}, (line,)))
