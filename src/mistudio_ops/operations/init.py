"""``init``: a commented configuration file to start from."""

from importlib.resources import files
from pathlib import Path

from mistudio_ops.config.file import FILE_NAME
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.errors import OpsError, UsageError


def example() -> str:
    """Return the commented example, as it is shipped."""
    return (files("mistudio_ops.templates") / FILE_NAME).read_text(encoding="utf-8")


def write_example(path: Path, *, force: bool = False) -> Path:
    """Write the example to ``path`` (a folder gets a ``mistudio.toml`` in it) and return where it is.

    Raises:
        UsageError: there is a file already, and ``force`` is not given.
        OpsError: it cannot be written.
    """
    target = path / FILE_NAME if path.is_dir() else path
    if target.exists() and not force:
        raise UsageError(f"{target} exists already", hint="--force replaces it, --print shows the example")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder", hint=f"mkdir -p {target.parent}")
    try:
        write_atomically(target, example(), mode=0o644)
    except OSError as error:
        raise OpsError(f"{target} cannot be written: {error.strerror}", hint="--output writes it elsewhere") from error
    return target
