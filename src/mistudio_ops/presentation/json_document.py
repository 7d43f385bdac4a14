"""Reporter for programs: one JSON document on stdout, written at the end; the rest goes to stderr as usual."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO

from mistudio_ops.presentation.redaction import MASK, Redactor
from mistudio_ops.presentation.reporter import ErrorReport, Reporter, Result, Step


class JsonReporter:
    """Collects the result and the error, and writes them as one document when closed.

    ``progress`` is the reporter that speaks on stderr meanwhile.
    """

    def __init__(self, stdout: TextIO, progress: Reporter, redactor: Redactor, *, schema: str) -> None:
        self._stdout = stdout
        self._progress = progress
        self._redactor = redactor
        self._schema = schema
        self._result: Result | None = None
        self._error: ErrorReport | None = None
        self._written = False

    def step(self, title: str, *, total: float | None = None) -> AbstractContextManager[Step]:
        """Show it on stderr."""
        return self._progress.step(title, total=total)

    def note(self, text: str) -> None:
        """Show it on stderr."""
        self._progress.note(text)

    def debug(self, text: str) -> None:
        """Show it on stderr under ``-v``."""
        self._progress.debug(text)

    def warning(self, text: str, *, hint: str | None = None) -> None:
        """Show it on stderr."""
        self._progress.warning(text, hint=hint)

    def output(self, text: str) -> None:
        """Leave it out: the document is the only thing on stdout."""

    def result(self, result: Result) -> None:
        """Keep it for the document."""
        self._result = result

    def error(self, report: ErrorReport) -> None:
        """Keep it for the document, and show it on stderr."""
        self._error = report
        self._progress.error(report)

    def hide(self, *secrets: str) -> None:
        """Mask these from now on."""
        self._redactor.hide(*secrets)

    def close(self) -> None:
        """Write the document, once."""
        if not self._written:
            self._written = True
            document = self._masked(json_value(self._document()))
            self._stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        self._stdout.flush()
        self._progress.close()

    def _document(self) -> dict[str, Any]:
        result = self._result
        return {
            "schema": result.schema if result else self._schema,
            "ok": self._error is None and result is not None and result.ok,
            "data": result.data if result else None,
            "error": self._error,
        }

    def _masked(self, value: Any) -> Any:
        # Strings one by one, before they are quoted: a mask over the finished text could break its quoting.
        if isinstance(value, str):
            return self._redactor.mask(value)
        if isinstance(value, dict):
            return {self._redactor.mask(key): self._masked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._masked(item) for item in value]
        return value


def json_value(value: Any) -> Any:
    """Return ``value`` in JSON's own types. Sets are sorted; a pydantic secret is masked; NaN becomes null."""
    if isinstance(value, Enum):
        return json_value(value.value)
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return _json_composite(value)


def _json_composite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(json_value(item) for item in value)
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return _json_scalar(value)


def _json_scalar(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "get_secret_value"):
        return MASK
    raise TypeError(f"{type(value).__name__} has no JSON form: turn it into one before it is reported")
