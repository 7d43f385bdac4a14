"""The ``[environments.NAME.server]`` table: any setting of the server that is not ours to set."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from mistudio_ops.config.problems import Problem, shown, unknown
from mistudio_server.settings import Settings

#: Set by mistudio-ops for each unit; the text says where the operator has a say instead.
MANAGED: dict[str, str] = {
    "host": "use host of the environment",
    "port": "use port of the environment",
    "internal_host": "it is always loopback",
    "internal_port": "it follows from port of the environment",
    "data_dir": "use data_dir of the environment",
    "database_url": "use database_url of the environment, or the variable MISTUDIO_DATABASE_URL",
    "redis_url": "use redis_url of the environment, or the variable MISTUDIO_REDIS_URL",
    "redis_ws_url": "it follows from redis_url of the environment",
    "redis_prefix": "it is made of the environment's name",
    "internal_token": "a deploy generates it",
    "mistudio_release": "a deploy sets it",
    "mistudio_instance": "it is the unit's name",
}

#: Where a value came from, and its dotted key, by the name of its setting.
Where = Callable[[str], tuple[str, str]]


class _CheckedSettings(Settings):
    """Settings from given values only: the operator's shell must not leak into the check."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def known_settings() -> list[str]:
    """Return the settings that may be set in the table."""
    return [name for name in Settings.model_fields if name not in MANAGED and not _secret(name)]


def server_problems(server: Mapping[str, Any], where: Where) -> list[Problem]:
    """Return what is wrong in the table, in the order of its keys."""
    problems = [problem for key, value in server.items() if (problem := _name_problem(key, value, where))]
    return problems or _value_problems(server, where)


def server_variables(server: Mapping[str, Any]) -> dict[str, str]:
    """Return the table as environment variables: names in capitals, values as text."""
    return {key.upper(): _text(value) for key, value in server.items()}


def _name_problem(key: str, value: Any, where: Where) -> Problem | None:
    name = key.lower()
    if name in MANAGED:
        return _problem(key, value, where, f"mistudio-ops sets this itself: {MANAGED[name]}")
    if name not in Settings.model_fields:
        return _problem(key, value, where, unknown(name, known_settings(), "setting"))
    if _secret(name):
        return _problem(
            key, None, where, f"a secret does not belong in this file: set the variable {key.upper()} instead"
        )
    if isinstance(value, dict):
        return _problem(key, value, where, "a setting is a single value, not a table")
    return None


def _value_problems(server: Mapping[str, Any], where: Where) -> list[Problem]:
    values: dict[str, Any] = {key.lower(): _text(value) for key, value in server.items()}
    spelling = {key.lower(): key for key in server}
    try:
        _CheckedSettings(**values)
    except ValidationError as error:
        return [
            _problem(spelling.get(name, name), server.get(spelling.get(name, name)), where, _sentence(details["msg"]))
            for details in error.errors(include_url=False)
            for name in [str(details["loc"][0]).lower() if details["loc"] else "auth_required"]
        ]
    return []


def _problem(key: str, value: Any, where: Where, message: str) -> Problem:
    source, path = where(key)
    return Problem(source, path, None if value is None else shown(key, value), message)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "it must be")
    return message if message[:2].isupper() else message[:1].lower() + message[1:]


def _secret(name: str) -> bool:
    annotation = Settings.model_fields[name].annotation
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return str(value)
