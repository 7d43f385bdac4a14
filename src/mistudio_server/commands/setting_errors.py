"""Saying which setting is wrong: variable, value (never a secret), remedy."""

import os
from typing import Any

from pydantic import SecretStr, ValidationError

from mistudio_server.settings import Settings


def explain(error: ValidationError) -> list[str]:
    """Return one line for each setting that is wrong."""
    return [_line(dict(item)) for item in error.errors(include_url=False, include_context=False)]


def _line(item: dict[str, Any]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    if not item["loc"]:
        return message
    field = str(item["loc"][0]).lower()
    variable = field.upper()
    remedy = "correct it and start again"
    known = Settings.model_fields.get(field)
    if known is not None and known.description:
        remedy = f"{variable} is: {known.description.rstrip('.')}"
    return f"{variable}{_value(field, variable)}: {message}; {remedy}"


def _value(field: str, variable: str) -> str:
    annotation = Settings.model_fields[field].annotation if field in Settings.model_fields else None
    if annotation is None or "SecretStr" in str(annotation) or annotation is SecretStr:
        return ""
    value = os.environ.get(variable, os.environ.get(field))
    return "" if value is None else f"={value[:100]!r}"
