"""``mistudio-ops version``."""

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app

app = verb_app()


@verb(app, schema="mistudio-ops/version/1", environment="none")
def version(invocation: Invocation) -> None:
    """Print the version of this program and of what it uses."""
    from mistudio_ops.operations.version import gather_versions
    from mistudio_ops.presentation.versions import versions_result

    invocation.reporter.result(versions_result(gather_versions()))
