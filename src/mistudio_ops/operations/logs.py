"""Reading the logs of units, once or as they grow."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.files import tail
from mistudio_ops.engines.state_files import log_file, marker
from mistudio_ops.errors import NothingFoundError

POLL_SECONDS = 0.2


def log_units(environment: Environment, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the units to show: those named (``backend`` means every backend), else all that have a log.

    Raises:
        NothingFoundError: nothing is deployed, or a named unit has no log; the message lists those that have.
    """
    known = sorted(path.stem for path in environment.paths.logs.glob("*.log"))
    if not marker(environment.paths).is_file() or not known:
        raise NothingFoundError(
            f"there are no logs in {environment.paths.logs}", hint=f"mistudio-ops deploy {environment.name}"
        )
    if not names:
        return tuple(known)
    chosen: list[str] = []
    for name in names:
        matching = [unit for unit in known if unit == name or unit.rpartition("-")[0] == name]
        if not matching:
            raise NothingFoundError(f"there is no log of a unit {name!r}", hint=f"units: {', '.join(known)}")
        chosen += [unit for unit in matching if unit not in chosen]
    return tuple(chosen)


def last_lines(environment: Environment, units: tuple[str, ...], lines: int) -> dict[str, list[str]]:
    """Return the last ``lines`` lines of each unit's log."""
    return {unit: tail(log_file(environment.paths, unit), lines) for unit in units}


def follow(
    environment: Environment,
    units: tuple[str, ...],
    *,
    sleep: Callable[[float], None] = time.sleep,
    going_on: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[str, str]]:
    """Yield (unit, line) as lines are written from now on, through rotations, until ``going_on`` says no."""
    readers = {unit: _Reader(log_file(environment.paths, unit)) for unit in units}
    while going_on():
        lines = [(unit, line) for unit, reader in readers.items() for line in reader.new_lines()]
        yield from lines
        if not lines:
            sleep(POLL_SECONDS)


class _Reader:
    """Reads what is appended to one file; starts over when the file was replaced or became shorter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = ""
        self._inode, self._offset = self._look()

    def new_lines(self) -> list[str]:
        inode, size = self._look()
        if inode != self._inode or size < self._offset:
            self._inode, self._offset, self._rest = inode, 0, ""
        if size <= self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data.decode("utf-8", errors="replace")).split("\n")
        return lines

    def _look(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_size
