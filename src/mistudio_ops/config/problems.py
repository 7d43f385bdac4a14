"""Errors of the configuration: where, which key, which value, and what was probably meant."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mistudio_ops.config.model import BackupTable, ConfigFile, EnvironmentTable
from mistudio_ops.config.secret_keys import is_secret
from mistudio_ops.errors import UsageError

#: How much of a value is worth repeating.
_LONGEST_VALUE = 80
#: Where pydantic's own words are no help.
_MESSAGES = {
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "dict_type": "it must be a table: [{key}]",
    "model_type": "it must be a table: [{key}]",
    "model_attributes_type": "it must be a table: [{key}]",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: ``source`` is a file, variable or flag, ``key`` a dotted path, ``value`` None if secret."""

    source: str
    key: str
    value: str | None
    message: str

    def __str__(self) -> str:
        """Return the one line that a person reads."""
        shown = f" = {self.value}" if self.value is not None else ""
        return f"{self.source}: {self.key}{shown}: {self.message}"


class ConfigurationError(UsageError):
    """The configuration is wrong; ``problems`` lists all of it."""

    code = "configuration"

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = tuple(problems)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` was probably meant to be."""
    return next(iter(get_close_matches(name.lower(), list(known), n=1)), None)


def unknown(name: str, known: Sequence[str], what: str = "key") -> str:
    """Return the message for an unknown name: the nearest one, else all of them."""
    near = nearest(name, known)
    return f"unknown {what}; did you mean {near}?" if near else f"unknown {what}; known are {', '.join(known)}"


def shown(key: str, value: Any) -> str | None:
    """Return ``value`` for a message, None if it is a secret or a whole table."""
    if is_secret(key.rsplit(".", 1)[-1]) or isinstance(value, dict | list):
        return None
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def from_validation(error: ValidationError, source_of: Callable[[tuple[str, ...]], str], raw: Any) -> list[Problem]:
    """Return pydantic's complaints as problems. ``source_of`` names where the value of a path came from."""
    return [_problem(details, source_of, raw) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, source_of: Callable[[tuple[str, ...]], str], raw: Any) -> Problem:
    names = tuple(str(part) for part in details["loc"] if part != "[key]")
    key = ".".join(names)
    return Problem(source_of(names), key, shown(key, _value_at(raw, names)), _message(details, names))


def _message(details: ErrorDetails, names: tuple[str, ...]) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        table = BackupTable if "backup" in names[:-1] else EnvironmentTable
        known = list(table.model_fields if len(names) != 1 else ConfigFile.model_fields)
        return unknown(names[-1], known)
    if "[key]" in details["loc"]:
        return "an environment's name is small letters, digits and dashes, at most 31, a letter first"
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(key=".".join(names))
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return message[:1].lower() + message[1:]


def _value_at(raw: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if not isinstance(raw, dict) or name not in raw:
            return {}  # nothing to show
        raw = raw[name]
    return raw
