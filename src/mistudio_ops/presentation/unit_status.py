"""How the state of units looks."""

from mistudio_ops.domain.status import Status, UnitStatus
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table, Tone
from mistudio_ops.presentation.reporter import Result

SCHEMA = "mistudio-ops/status/1"
_TONES: dict[str, Tone] = {"RUNNING": "good", "STARTING": "warn", "STOPPING": "warn", "BACKOFF": "bad", "FATAL": "bad"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def status_result(status: Status) -> Result:
    """Return a table of units and a line about the environment. ``ok`` when all of them run."""
    blocks: list[Block] = []
    if status.running:
        columns = ("unit", "state", "pid", "uptime", "restarts", "memory MB", "ports")
        rows = [_row(unit) for unit in status.units]
        blocks.append(Table(columns, rows, right=frozenset({"pid", "uptime", "restarts", "memory MB"})))
        blocks += [Line(text, "dim") for unit in status.units if (text := _last_end(unit))]
    blocks.append(_summary(status))
    return Result(SCHEMA, status, blocks, ok=status.all_run)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, as in ``3 h 05 min``."""
    whole = int(seconds)
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR:02} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole} s"


def _row(unit: UnitStatus) -> tuple[Cell | str, ...]:
    return (
        unit.name,
        Cell(unit.state.lower(), _TONES.get(unit.state, "bad")),
        str(unit.pid or "-"),
        duration(unit.uptime) if unit.uptime is not None else "-",
        Cell(str(unit.restarts), "warn" if unit.restarts else "plain"),
        _megabytes(unit.memory),
        " ".join(str(port) for port in unit.ports),
    )


def _last_end(unit: UnitStatus) -> str | None:
    return f"{unit.name} ended last by: {unit.last_end}" if unit.last_end else None


def _summary(status: Status) -> Line:
    release = f"release {status.release}, deployed {status.deployed}" if status.release else "no release yet"
    if not status.running:
        return Line(f"{status.environment} does not run; {release}; mistudio-ops deploy {status.environment}", "bad")
    running = sum(unit.state in {"RUNNING", "STARTING"} for unit in status.units)
    text = (
        f"{status.environment}: {running}/{len(status.units)} units run, {_megabytes(status.memory)} MB in all "
        f"(with supervisord), {release}, {status.url}"
    )
    return Line(text, "good" if status.all_run else "bad")


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1024**2:.0f}"
