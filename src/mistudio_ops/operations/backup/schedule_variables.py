"""What a scheduled backup must be told: whatever the operator had in variables and flags when installing it.

cron starts a command with HOME, PATH, SHELL and little else. So the values that came from flags and variables are
written down as they were resolved (absolute paths, the file that was found from the folder one stood in), together with
the variables that libraries and client programs read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mistudio_ops.config.resolve import Resolved

#: Ours that are no keys of an environment, and hold for every run of it.
OURS = ("MISTUDIO_BACKUP_PASSPHRASE", "MISTUDIO_NOTIFY_URLS", "MISTUDIO_HEARTBEAT_URL")
#: Of the system: where programs and files of ours are looked for, and what time it is.
SYSTEM = (
    "HOME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "DOCKER_HOST",
    "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_KNOWN_HOSTS",
    "LD_LIBRARY_PATH",
)  # fmt: skip
PREFIXES = ("AWS_", "PG")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def schedule_variables(resolved: Resolved, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment file."""
    variables = {name: value for name, value in environ.items() if _is_passed_on(name)}
    variables |= dict(_keys(resolved))
    if resolved.file is not None:
        variables["MISTUDIO_CONFIG"] = str(resolved.file.absolute())
    return variables


def _is_passed_on(name: str) -> bool:
    return name in OURS or name in SYSTEM or name.startswith(PREFIXES) or name.lower() in PROXIES


def _keys(resolved: Resolved) -> Iterator[tuple[str, str]]:
    """Give the keys that came from a flag or a variable, as variables."""
    for key, origin in resolved.origins.items():
        if origin.kind in {"flag", "environment"}:
            value = _value(resolved, key)
            if value is not None:
                yield f"MISTUDIO_{key.replace('.', '_').upper()}", value


def _value(resolved: Resolved, key: str) -> str | None:
    environment = resolved.environment
    table, _, name = key.rpartition(".")
    if table == "server":
        return environment.server[name.upper()]
    value = getattr(environment.backup if table == "backup" else environment, name)
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value.absolute()) if isinstance(value, Path) else None if value is None else str(value)
