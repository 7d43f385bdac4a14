"""Variables for a command that cron or systemd starts with none: lines ``NAME="value"``, quoted as in JSON."""

import json
from collections.abc import Mapping
from pathlib import Path

from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.errors import PreconditionError, UsageError

_HEAD = "# Written by mistudio-ops backup schedule install; it holds secrets. Install again after changing variables.\n"


def write_variables(path: Path, variables: Mapping[str, str]) -> None:
    """Replace the file.

    Raises:
        PreconditionError: it cannot be written.
    """
    lines = [f"{name}={json.dumps(value)}\n" for name, value in sorted(variables.items())]
    try:
        write_atomically(path, _HEAD + "".join(lines), mode=0o600)
    except OSError as error:
        raise PreconditionError(f"{path} cannot be written: {error.strerror}") from error


def read_variables(path: Path) -> dict[str, str]:
    """Return the variables.

    Raises:
        UsageError: it cannot be read, others can read it, or a line is not what we write.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the environment file {path} cannot be read: {error}", hint="mistudio-ops backup schedule install"
        ) from error
    if mode & 0o077:
        raise UsageError(f"others can read the environment file {path}, which holds secrets", hint=f"chmod 600 {path}")
    return dict(_parsed(path, number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#")


def _parsed(path: Path, number: int, line: str) -> tuple[str, str]:
    name, separator, text = line.partition("=")
    try:
        value = json.loads(text) if separator and name.isidentifier() else None
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise UsageError(f'{path}, line {number}: it must look like NAME="value"', hint="or install it again")
    return name, value
