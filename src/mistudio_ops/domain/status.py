"""What an environment's units are doing. Pure values, and reading supervisord's log."""

import re
from dataclasses import dataclass

_STARTED = re.compile(r"supervisord started with pid")
_EXITED = re.compile(r"exited: (\S+) \((.*?)(?:; (?:not )?expected)?\)")
_SPAWNED = re.compile(r"spawned: '([^']+)' with pid")
_STOPPED = re.compile(r"stopped: (\S+) \(")


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One unit. ``memory`` is PSS in bytes (its children included), ``uptime`` in seconds."""

    name: str
    state: str
    pid: int | None = None
    uptime: float | None = None
    restarts: int = 0
    last_end: str | None = None
    memory: int | None = None
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """An environment. ``running`` is True when its supervisor does."""

    environment: str
    url: str
    state_dir: str
    data_dir: str
    running: bool
    release: str | None = None
    deployed: str | None = None
    supervisor_pid: int | None = None
    units: tuple[UnitStatus, ...] = ()
    memory: int | None = None

    @property
    def all_run(self) -> bool:
        """True when every unit has a process; one that ends within a second is waiting (BACKOFF) most of the time."""
        return self.running and bool(self.units) and all(unit.state in {"RUNNING", "STARTING"} for unit in self.units)


@dataclass(slots=True)
class Restarts:
    """How often a unit was started again after it ended by itself, and how it ended last."""

    count: int = 0
    last_end: str | None = None
    ended: bool = False


def restarts(log: str) -> dict[str, Restarts]:
    """Count the restarts in supervisord's log since it started; a stop that was asked for begins a new count."""
    units: dict[str, Restarts] = {}
    for line in log.splitlines():
        if _STARTED.search(line):
            units = {}
        elif match := _EXITED.search(line):
            unit = units.setdefault(match[1], Restarts())
            unit.ended, unit.last_end = True, match[2]
        elif match := _STOPPED.search(line):
            units[match[1]] = Restarts()
        elif match := _SPAWNED.search(line):
            unit = units.setdefault(match[1], Restarts())
            unit.count += unit.ended
            unit.ended = False
    return units
