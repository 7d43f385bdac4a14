"""``config show``: the resolved environment, without its secrets."""

from typing import Any

from mistudio_ops.config.resolve import Resolved
from mistudio_ops.config.secret_keys import is_secret, without_password
from mistudio_ops.domain.configuration import ShownConfiguration, ShownValue
from mistudio_ops.presentation.redaction import MASK


def show_configuration(resolved: Resolved) -> ShownConfiguration:
    """Return every key of the environment with its value and where that came from."""
    environment = resolved.environment
    values = [
        ShownValue(key, _shown(key, _value(environment, key)), origin.kind, origin.detail)
        for key, origin in resolved.origins.items()
    ]
    return ShownConfiguration(environment.name, str(resolved.file) if resolved.file else None, values)


def _value(environment: Any, key: str) -> Any:
    if key.startswith("server."):
        return environment.server[key.removeprefix("server.").upper()]
    if key.startswith("backup."):
        name = key.removeprefix("backup.")
        return environment.backups if name == "directory" else getattr(environment.backup, name)
    # The default of data_dir is a folder of state_dir, which the property knows.
    return getattr(environment, "data" if key == "data_dir" else key)


def _shown(key: str, value: Any) -> Any:
    if key.endswith("_url"):
        return without_password(value) if value else None
    if is_secret(key):
        return MASK
    if isinstance(value, tuple):
        return ", ".join(value)
    return value if value is None or isinstance(value, bool | int) else str(value)
