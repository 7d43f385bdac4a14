"""How ``version`` looks."""

from mistudio_ops.domain.versions import Versions
from mistudio_ops.presentation.blocks import Line, Table
from mistudio_ops.presentation.reporter import Result


def versions_result(versions: Versions) -> Result:
    """Return the versions as one line and a table."""
    rows = [(name, found or "not installed") for name, found in versions.libraries.items()]
    return Result(
        schema="mistudio-ops/version/1",
        data=versions,
        blocks=(
            Line(f"mistudio-ops {versions.mistudio}, Python {versions.python}, {versions.platform}"),
            Table(("library", "version"), rows),
        ),
    )
