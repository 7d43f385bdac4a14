"""What is installed here, and which release it is."""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from mistudio_ops import __version__
from mistudio_ops.domain.versions import Versions

#: Distributions whose version explains most reports; torch and transformers come with extra ``train``.
DISTRIBUTIONS = (
    "fastapi", "python-socketio", "celery", "redis", "sqlalchemy", "alembic", "psycopg", "typer", "torch",
    "transformers",
)  # fmt: skip


def gather_versions(installed: Callable[[str], str] = version) -> Versions:
    """Read the versions from the installed metadata; nothing is imported."""
    return Versions(
        mistudio=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: _installed(name, installed) for name in DISTRIBUTIONS},
    )


def _installed(name: str, installed: Callable[[str], str]) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
