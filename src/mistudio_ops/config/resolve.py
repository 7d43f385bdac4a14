"""From flags, variables, file and defaults to one environment, and where each value came from."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from mistudio_ops.config.file import FILE_NAME, LoadedFile, load_file
from mistudio_ops.config.model import BackupTable, EnvironmentTable
from mistudio_ops.config.problems import ConfigurationError, Problem, from_validation, nearest, unknown
from mistudio_ops.config.secret_keys import is_secret, url_passwords
from mistudio_ops.config.server_settings import server_problems, server_variables
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.errors import UsageError

DEFAULT_ENVIRONMENT = "local"
#: Variables of ours that are not keys of an environment.
OTHER_VARIABLES = frozenset(
    {
        "MISTUDIO_ENV", "MISTUDIO_CONFIG", "MISTUDIO_RELEASE", "MISTUDIO_INSTANCE",
        "MISTUDIO_BACKUP_PASSPHRASE", "MISTUDIO_NOTIFY_URLS", "MISTUDIO_HEARTBEAT_URL",
    }
)  # fmt: skip
SERVER_PREFIX = "MISTUDIO_SERVER_"
BACKUP_PREFIX = "MISTUDIO_BACKUP_"
_TABLES = ("server", "backup")
_BACKUP_KEYS = tuple(f"backup.{name}" for name in BackupTable.model_fields)
_KEYS = (*(name for name in EnvironmentTable.model_fields if name not in _TABLES), *_BACKUP_KEYS)
_PATHS = (
    "state_dir", "data_dir", "backup.directory", "backup.identity_file", "backup.passphrase_file", "backup.textfile",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; ``detail`` is the flag, the variable, or the file and key."""

    kind: Literal["flag", "environment", "file", "default"]
    detail: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """An environment, the origin of each of its keys (``server.NAME`` for settings), and the secrets to mask."""

    environment: Environment
    origins: Mapping[str, Origin]
    file: Path | None
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Values of one source by key, each with its origin. Paths in it are relative to ``base``."""

    values: Mapping[str, tuple[Any, Origin]]
    base: Path


def resolve_environment(
    name: str,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    config: Path | None = None,
    overrides: tuple[str, ...] = (),
    euid: Callable[[], int] = os.geteuid,
) -> Resolved:
    """Return the environment called ``name``: flags win over variables, those over the file, that over defaults.

    Args:
        name: ``local`` always exists; others are tables of the file.
        environ: variables of the process.
        cwd: where the file is looked for from, and what paths in flags and variables are relative to.
        config: the file, instead of the one found.
        overrides: ``key=value`` of ``--set``.
        euid: who we are; root's state is below /var/lib.

    Raises:
        UsageError: no such environment, or (``ConfigurationError``) a value that is wrong, all of them listed.
    """
    file = load_file(environ=environ, cwd=cwd, option=config)
    _must_exist(name, file)
    layers = (_flag_layer(overrides, cwd), _variable_layer(environ, cwd), _file_layer(name, file))
    values, origins = _merge(layers)
    table = _validated(values, origins)
    environment = _environment(name, table, environ, euid)
    _must_be_safe(environment, origins)
    return Resolved(environment, _with_defaults(origins, environment), file.path, _secrets(environment))


def environment_names(file: LoadedFile) -> list[str]:
    """Return the environments that exist: ``local``, and those of the file."""
    return sorted({DEFAULT_ENVIRONMENT, *file.content.environments})


def default_state_dir(name: str, environ: Mapping[str, str], euid: Callable[[], int] = os.geteuid) -> Path:
    """Return where an environment's state is when nobody says otherwise."""
    if euid() == 0:
        return Path("/var/lib/mistudio", name)
    state = environ.get("XDG_STATE_HOME")
    base = (
        Path(state)
        if state and Path(state).is_absolute()
        else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
    )
    return base / "mistudio" / name


def _must_exist(name: str, file: LoadedFile) -> None:
    names = environment_names(file)
    if name in names:
        return
    near = nearest(name, names)
    where = f"in {file.path}" if file.path else f"and no {FILE_NAME} here or above"
    add = (
        f"add [environments.{name}] to {file.path}"
        if file.path
        else f"mistudio-ops init, then add [environments.{name}]"
    )
    raise UsageError(
        f"no environment {name!r} {where}; there {'are' if len(names) > 1 else 'is'} {', '.join(names)}",
        hint=f"did you mean {near}? Otherwise {add}" if near else add,
    )


def _flag_layer(overrides: tuple[str, ...], cwd: Path) -> _Layer:
    values: dict[str, tuple[Any, Origin]] = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not separator:
            raise UsageError(f"--set {text}: it takes KEY=VALUE", hint="as in --set port=9000")
        if key not in _KEYS and not key.startswith("server."):
            raise ConfigurationError([Problem("--set", key, value, unknown(key, [*_KEYS, "server.NAME"]))])
        values[key] = (value, Origin("flag", f"--set {key}"))
    return _Layer(values, cwd)


def _variable_layer(environ: Mapping[str, str], cwd: Path) -> _Layer:
    values: dict[str, tuple[Any, Origin]] = {}
    for variable, value in environ.items():
        key = variable.removeprefix("MISTUDIO_").lower()
        if variable.startswith(SERVER_PREFIX):
            key = f"server.{variable.removeprefix(SERVER_PREFIX).lower()}"
        elif variable.startswith(BACKUP_PREFIX):
            key = f"backup.{variable.removeprefix(BACKUP_PREFIX).lower()}"
            if key not in _KEYS:
                continue
        elif not variable.startswith("MISTUDIO_") or key not in _KEYS:
            continue
        if value:
            values[key] = (value, Origin("environment", variable))
    return _Layer(values, cwd)


def _file_layer(name: str, file: LoadedFile) -> _Layer:
    table = file.content.environments.get(name)
    if table is None or file.path is None:
        return _Layer({}, Path.cwd())
    given = table.model_dump(exclude_unset=True)
    given |= {f"server.{key.lower()}": value for key, value in given.pop("server", {}).items()}
    given |= {f"backup.{key}": value for key, value in given.pop("backup", {}).items()}
    values = {key: (value, Origin("file", f"{file.path}: environments.{name}.{key}")) for key, value in given.items()}
    return _Layer(values, file.path.parent)


def _merge(layers: tuple[_Layer, ...]) -> tuple[dict[str, Any], dict[str, Origin]]:
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer in reversed(layers):
        for key, (value, origin) in layer.values.items():
            values[key] = layer.base / Path(value).expanduser() if key in _PATHS else value
            origins[key] = origin
    return values, origins


def _validated(values: dict[str, Any], origins: Mapping[str, Origin]) -> EnvironmentTable:
    own = {key: value for key, value in values.items() if not key.startswith(("server.", "backup."))}
    own["backup"] = {key.removeprefix("backup."): value for key, value in values.items() if key in _BACKUP_KEYS}
    server = {key.removeprefix("server."): value for key, value in values.items() if key.startswith("server.")}

    def source_of(names: tuple[str, ...]) -> str:
        return _source(origins[".".join(names[:2]) if names[0] == "backup" else names[0]])

    try:
        table = EnvironmentTable.model_validate(own | {"server": server})
    except ValidationError as error:
        raise ConfigurationError(from_validation(error, source_of, own)) from None
    problems = server_problems(server, lambda key: (_source(origins[f"server.{key}"]), f"server.{key}"))
    if problems:
        raise ConfigurationError(problems)
    return table


def _source(origin: Origin) -> str:
    return origin.detail.rsplit(": ", 1)[0] if origin.kind == "file" else origin.detail.split(" ")[0]


def _environment(
    name: str, table: EnvironmentTable, environ: Mapping[str, str], euid: Callable[[], int]
) -> Environment:
    state_dir = table.state_dir or default_state_dir(name, environ, euid)
    return Environment(
        name=name, state_dir=Path(os.path.normpath(state_dir)), engine=table.engine, host=table.host, port=table.port,
        backends=table.backends, workers=table.workers, run_as=table.run_as, prefer=table.prefer,
        database_url=table.database_url, redis_url=table.redis_url,
        database_admin_url=table.database_admin_url, database_container=table.database_container,
        data_dir=Path(os.path.normpath(table.data_dir)) if table.data_dir else None,
        server=server_variables(table.server), backup=_backup(table.backup),
    )  # fmt: skip


def _backup(table: BackupTable) -> BackupSettings:
    return BackupSettings(**{name: _frozen(value) for name, value in table})


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Path(os.path.normpath(value)) if isinstance(value, Path) else value


def _must_be_safe(environment: Environment, origins: Mapping[str, Origin]) -> None:
    if environment.on_loopback or environment.server.get("AUTH_REQUIRED", "").lower() == "true":
        return
    origin = origins.get("host", Origin("default", ""))
    raise ConfigurationError(
        [Problem(_source(origin), "host", repr(environment.host), "others could reach it without a token")],
        hint=f'set auth_required = true in [environments.{environment.name}.server], or host = "127.0.0.1"',
    )


def _with_defaults(origins: Mapping[str, Origin], environment: Environment) -> dict[str, Origin]:
    keys = (*_KEYS, *(f"server.{name.lower()}" for name in environment.server))
    return {key: origins.get(key, Origin("default", "")) for key in keys}


def _secrets(environment: Environment) -> tuple[str, ...]:
    urls = (environment.database_url, environment.database_admin_url, environment.redis_url)
    found = [password for url in urls for password in url_passwords(url)]
    try:
        generated = json.loads(environment.paths.secrets.read_text())
    except (OSError, ValueError):
        generated = {}
    if isinstance(generated, dict):
        found += [value for key, value in generated.items() if isinstance(value, str) and _hides(key, value)]
    return tuple(dict.fromkeys(found))


def _hides(key: str, value: str) -> bool:
    return is_secret(key) or bool(url_passwords(value))
