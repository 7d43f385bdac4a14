"""How ``config show`` and ``config check`` look."""

from mistudio_ops.domain.configuration import CheckedConfiguration, ShownConfiguration, ShownValue
from mistudio_ops.presentation.blocks import Cell, Line, Table
from mistudio_ops.presentation.reporter import Result


def shown_result(shown: ShownConfiguration, *, origin: bool) -> Result:
    """Return the keys as a table, with the origins on request."""
    rows = [
        (value.key, _value(value), *((_origin(value.origin, value.detail),) if origin else ()))
        for value in shown.values
    ]
    columns = ("key", "value", *(("origin",) if origin else ()))
    head = Line(f"environment {shown.environment}, {f'from {shown.file}' if shown.file else 'no mistudio.toml'}")
    return Result("mistudio-ops/config-show/1", shown, (head, Table(columns, rows)))


def _value(value: ShownValue) -> Cell | str:
    return Cell("-", "dim") if value.value is None else str(value.value)


def _origin(kind: str, detail: str) -> str:
    return f"{kind}: {detail}" if detail else kind


def checked_result(checked: CheckedConfiguration) -> Result:
    """Return one line that says it is valid."""
    where = checked.file or "no mistudio.toml here or above: the defaults apply"
    line = Line(f"{where}: valid; environments: {', '.join(checked.environments)}", "good")
    return Result("mistudio-ops/config-check/1", checked, (line,))
