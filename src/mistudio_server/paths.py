"""Where the package keeps the files that it ships."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def migrations_dir() -> Path:
    """Return the folder of the Alembic scripts: the repository's in a source tree, else the wheel's own copy.

    The repository's comes first because an editable install keeps a stale snapshot of the forced include.
    """
    repository = _PACKAGE.parents[1] / "migrations"
    if (repository / "env.py").is_file():
        return repository
    return _PACKAGE / "_migrations"
