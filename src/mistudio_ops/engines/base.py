"""What a deploy asks of an engine, whatever runs the units: processes here, containers later."""

from collections.abc import Mapping
from typing import Protocol

from mistudio_ops.domain.units import Unit, UnitState


class Engine(Protocol):
    """Starts units, stops them, looks at them."""

    def supervisor_pid(self) -> int | None:
        """Return the process id of what looks after the units; None when nothing runs."""

    def boot(self, units: tuple[Unit, ...]) -> None:
        """Start the supervisor with these programs known and none started; a no-op when it runs."""

    def states(self) -> Mapping[str, UnitState]:
        """Return every unit that is known, running or not, by name."""

    def definition(self, name: str) -> Unit | None:
        """Return what a unit was last started as; None for one that never was."""

    def start(self, unit: Unit) -> None:
        """Define and start ``unit``; one that runs with another definition is stopped first. Does not wait."""

    def stop(self, name: str) -> None:
        """Stop a unit and wait for its end."""

    def remove(self, name: str) -> None:
        """Stop a unit and forget it."""

    def signal(self, name: str, signal: str) -> None:
        """Send a signal such as HUP."""

    def shutdown(self) -> None:
        """Stop all units, those who ask before those who answer, and then the supervisor."""

    def log(self, name: str, lines: int) -> list[str]:
        """Return the last lines that a unit wrote."""
