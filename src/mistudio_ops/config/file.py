"""Finding and reading ``mistudio.toml``."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mistudio_ops.config.model import ConfigFile
from mistudio_ops.config.problems import ConfigurationError, Problem, from_validation
from mistudio_ops.config.secret_keys import url_passwords
from mistudio_ops.config.server_settings import server_problems
from mistudio_ops.errors import UsageError

FILE_NAME = "mistudio.toml"


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """The configuration file; ``path`` is None when there is none, and then it has no environments."""

    path: Path | None
    content: ConfigFile


def load_file(*, environ: Mapping[str, str], cwd: Path, option: Path | None = None) -> LoadedFile:
    """Read the file that applies: ``--config``, else ``MISTUDIO_CONFIG``, else the nearest one at or above ``cwd``.

    Raises:
        ConfigurationError: it is not valid; all that is wrong is listed.
        UsageError: a file named explicitly is missing or unreadable.
    """
    path = _named_file(environ, cwd, option) or _discovered(cwd)
    if path is None:
        return LoadedFile(None, ConfigFile())
    raw = _parse(path)
    return LoadedFile(path, _validate(path, raw))


def _named_file(environ: Mapping[str, str], cwd: Path, option: Path | None) -> Path | None:
    named, how = (option, "--config") if option else (environ.get("MISTUDIO_CONFIG"), "MISTUDIO_CONFIG")
    if not named:
        return None
    path = cwd / Path(named).expanduser()
    if not path.is_file():
        raise UsageError(f"{how} names {path}, which is not a file", hint=f"mistudio-ops init --output {path}")
    return path


def _discovered(cwd: Path) -> Path | None:
    candidates = (folder / FILE_NAME for folder in (cwd, *cwd.parents))
    return next((path for path in candidates if path.is_file()), None)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint="strings need quotes: https://toml.io") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint=f"ls -l {path}") from error


def _validate(path: Path, raw: dict[str, Any]) -> ConfigFile:
    """Return the content, or raise with everything that is wrong in it."""
    content, problems = None, []
    try:
        content = ConfigFile.model_validate(raw)
    except ValidationError as error:
        problems += from_validation(error, lambda _: str(path), raw)
    for name, table in _tables(raw).items():
        problems += _secrets_in_file(path, name, table)
        problems += _server_problems(path, name, table.get("server"))
    if content is None or problems:
        raise ConfigurationError(problems, hint=f"correct {path}; mistudio-ops init --print shows every key")
    return content


def _tables(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the environments of a file that may be wrong elsewhere."""
    environments = raw.get("environments")
    named = environments.items() if isinstance(environments, dict) else ()
    return {name: table for name, table in named if isinstance(table, dict)}


def _server_problems(path: Path, name: str, server: Any) -> list[Problem]:
    if not isinstance(server, dict):
        return []

    def where(key: str) -> tuple[str, str]:
        return str(path), f"environments.{name}.server.{key}"

    return server_problems(server, where)


def _secrets_in_file(path: Path, name: str, table: dict[str, Any]) -> list[Problem]:
    return [
        Problem(
            str(path),
            f"environments.{name}.{key}",
            None,
            f"a password does not belong in this file: leave it out and set MISTUDIO_{key.upper()} to the whole URL",
        )
        for key in ("database_url", "database_admin_url", "redis_url")
        if isinstance(table.get(key), str) and url_passwords(table[key])
    ]
