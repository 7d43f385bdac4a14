"""Fakes of the Protocols that operations work with, for tests here and in what builds on us."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mistudio_ops.domain.units import Unit, UnitState
from mistudio_ops.drivers.supervisor import ProcessInfo

_FIRST_PID = 4_000_000  # above the kernel's default limit: never a real process


@dataclass
class FakeSupervisor:
    """A supervisord in memory: its programs are the files in ``programs``, and every start succeeds."""

    programs: Path
    calls: list[str] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    own_pid: int | None = _FIRST_PID

    def pid(self) -> int | None:
        """Return its process id, None after ``shutdown``."""
        return self.own_pid

    def processes(self) -> dict[str, ProcessInfo]:
        """Return its programs."""
        return {name: self._info(name) for name in sorted(self.known)} if self.own_pid is not None else {}

    def reload(self) -> None:
        """Know the programs that have a file."""
        self.calls.append("reload")
        self.known = {path.stem for path in self.programs.glob("*.conf")}
        self.running = {name: pid for name, pid in self.running.items() if name in self.known}

    def start(self, name: str) -> None:
        """Run it."""
        self.calls.append(f"start {name}")
        self.running.setdefault(name, _FIRST_PID + 1 + len(self.calls))

    def stop(self, name: str) -> None:
        """Stop it."""
        self.calls.append(f"stop {name}")
        self.running.pop(name, None)

    def signal(self, name: str, signal: str) -> None:
        """Note it."""
        self.calls.append(f"{signal} {name}")

    def shutdown(self) -> None:
        """End."""
        self.calls.append("shutdown")
        self.own_pid = None

    def _info(self, name: str) -> ProcessInfo:
        pid = self.running.get(name)
        return ProcessInfo(name, "RUNNING" if pid else "STOPPED", pid, 0.0 if pid else None, "")


@dataclass
class FakeEngine:
    """An engine in memory. Units in ``broken`` end as soon as they start."""

    calls: list[str] = field(default_factory=list)
    units: dict[str, Unit] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    logs: dict[str, list[str]] = field(default_factory=dict)
    pid: int | None = None
    _starts: int = 0

    def supervisor_pid(self) -> int | None:
        """Return the pid that ``boot`` set."""
        return self.pid

    def boot(self, units: tuple[Unit, ...]) -> None:
        """Run."""
        del units
        self.calls.append("boot")
        self.pid = self.pid or _FIRST_PID

    def states(self) -> Mapping[str, UnitState]:
        """Return the units that were started."""
        return {name: self._state(unit) for name, unit in self.units.items()} if self.pid is not None else {}

    def definition(self, name: str) -> Unit | None:
        """Return what a unit was started as."""
        return self.units.get(name)

    def start(self, unit: Unit) -> None:
        """Start it."""
        self.calls.append(f"start {unit.name}")
        self.units[unit.name] = unit
        self.down.discard(unit.name)

    def stop(self, name: str) -> None:
        """Stop it."""
        self.calls.append(f"stop {name}")
        self.down.add(name)

    def remove(self, name: str) -> None:
        """Forget it."""
        self.calls.append(f"remove {name}")
        self.units.pop(name, None)

    def signal(self, name: str, signal: str) -> None:
        """Note it."""
        self.calls.append(f"{signal} {name}")

    def shutdown(self) -> None:
        """Stop everything."""
        self.calls.append("shutdown")
        self.pid = None
        self.down |= set(self.units)

    def log(self, name: str, lines: int) -> list[str]:
        """Return what the test put there."""
        return self.logs.get(name, [])[-lines:]

    def _state(self, unit: Unit) -> UnitState:
        if unit.name in self.down:
            return UnitState(unit.name, "STOPPED")
        if unit.name in self.broken:
            self._starts += 1  # a new process at every look
            return UnitState(unit.name, "STARTING", _FIRST_PID + self._starts, float(self._starts), unit.digest)
        return UnitState(unit.name, "RUNNING", _FIRST_PID, 0.0, unit.digest)
