"""Keeping an environment's secrets: generated once, in a file that only its owner reads."""

import json
import secrets as random
from pathlib import Path

from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.errors import UsageError


def generate() -> str:
    """Return 192 random bits as text that needs no quoting anywhere."""
    return random.token_urlsafe(24)


def read_secrets(path: Path) -> SecretValues | None:
    """Return the secrets in ``path``, None where there is none.

    Raises:
        UsageError: the file is not what we wrote.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        return SecretValues.completed(json.loads(text), generate)
    except (ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged: it holds no JSON object of secrets",
            hint="restore it from a copy; without it the database's passwords are lost",
        ) from error


def write_secrets(path: Path, secrets: SecretValues) -> None:
    """Write ``secrets`` with mode 0600."""
    write_atomically(path, json.dumps(secrets.document(), indent=2) + "\n", mode=0o600)
