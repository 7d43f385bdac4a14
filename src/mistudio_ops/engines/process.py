"""The process engine: units are child processes of one supervisord per environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.domain.units import STOP_ORDER, Unit, UnitState, kind_of
from mistudio_ops.drivers.files import tail, write_atomically
from mistudio_ops.drivers.supervisor import ProcessInfo, Supervisor, SupervisorClient, SupervisorGoneError
from mistudio_ops.engines.state_files import definition_file, log_file, run_file, supervisor_socket
from mistudio_ops.engines.supervisord import render_supervisord
from mistudio_ops.errors import OpsError

BOOT_SECONDS = 10.0
SHUTDOWN_SECONDS = 30.0
_POLL_SECONDS = 0.02


class ProcessEngine:
    """Implements ``engines.base.Engine`` with supervisord."""

    def __init__(
        self,
        paths: EnvironmentPaths,
        *,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._paths = paths
        self._supervisor: Supervisor = supervisor or SupervisorClient(supervisor_socket(paths))
        self._clock = clock
        self._sleep = sleep

    def supervisor_pid(self) -> int | None:
        """Return supervisord's process id."""
        return self._supervisor.pid()

    def boot(self, units: tuple[Unit, ...]) -> None:
        """Start supervisord in a session of its own, with a clean environment."""
        if self._supervisor.pid() is not None:
            return
        self._write_programs(units)
        argv = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(self._config_file)]
        clean = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            argv, env=clean, cwd=self._paths.root, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            start_new_session=True, timeout=BOOT_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0 or not self._until(lambda: self._supervisor.pid() is not None, BOOT_SECONDS):
            lines = (done.stdout + done.stderr).splitlines() + tail(self._paths.logs / "supervisord.log", 20)
            raise OpsError(
                "supervisord does not start:\n" + "\n".join(f"    {line}" for line in lines[-20:]),
                hint=f"read {self._paths.logs / 'supervisord.log'}",
            )

    def states(self) -> Mapping[str, UnitState]:
        """Return the units that supervisord knows."""
        return {name: self._state(info) for name, info in self._supervisor.processes().items()}

    def definition(self, name: str) -> Unit | None:
        """Read it back from the file that the launcher reads."""
        try:
            return Unit.parse(json.loads(definition_file(self._paths, name).read_text()))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def start(self, unit: Unit) -> None:
        """Write the definition, and start it as that."""
        known = self._supervisor.processes()
        path = definition_file(self._paths, unit.name)
        if not path.is_file() or path.read_text() != unit.document():
            write_atomically(path, unit.document(), mode=0o600)
        info = known.get(unit.name)
        if info is None or self._program_differs(unit):
            self._define(unit)
        elif info.pid is not None and self._state(info).digest != unit.digest:
            self._supervisor.stop(unit.name)
        self._supervisor.start(unit.name)

    def stop(self, name: str) -> None:
        """Stop it."""
        self._supervisor.stop(name)

    def remove(self, name: str) -> None:
        """Stop it and take it out of supervisord's configuration."""
        self._supervisor.stop(name)
        self._program_file(name).unlink(missing_ok=True)
        definition_file(self._paths, name).unlink(missing_ok=True)
        run_file(self._paths, name).unlink(missing_ok=True)
        self._supervisor.reload()

    def signal(self, name: str, signal: str) -> None:
        """Send a signal."""
        self._supervisor.signal(name, signal)

    def shutdown(self) -> None:
        """Stop the units kind after kind, then supervisord, and wait until its process is gone."""
        pid = self._supervisor.pid()
        if pid is None:
            return
        names = list(self._supervisor.processes())
        for kinds in STOP_ORDER:
            self._stop_together([name for name in names if kind_of(name) in kinds])
        self._supervisor.shutdown()
        if not self._until(lambda: not _alive(pid), SHUTDOWN_SECONDS):
            raise OpsError(
                f"supervisord (process {pid}) does not end within {SHUTDOWN_SECONDS:.0f} s",
                hint=f"read {self._paths.logs / 'supervisord.log'}; `kill {pid}` ends it with its units",
            )

    def log(self, name: str, lines: int) -> list[str]:
        """Return the end of its log file."""
        return tail(log_file(self._paths, name), lines)

    def _stop_together(self, names: list[str]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        if names:
            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(self._supervisor.stop, names))

    def _state(self, info: ProcessInfo) -> UnitState:
        return UnitState(info.name, info.state, info.pid, info.since, self._digest(info), info.reason)

    def _digest(self, info: ProcessInfo) -> str | None:
        """Return what the running process was started with, as its launcher wrote it down."""
        try:
            document = json.loads(run_file(self._paths, info.name).read_text())
        except (OSError, ValueError):
            return None
        return str(document["digest"]) if document.get("group") == info.pid else None

    @property
    def _config_file(self) -> Path:
        return self._paths.config / "supervisord.conf"

    def _program_file(self, name: str) -> Path:
        return self._paths.config / "programs" / f"{name}.conf"

    def _program_differs(self, unit: Unit) -> bool:
        path = self._program_file(unit.name)
        return not path.is_file() or path.read_text() != render_supervisord(self._paths, unit)

    def _define(self, unit: Unit) -> None:
        write_atomically(self._program_file(unit.name), render_supervisord(self._paths, unit), mode=0o600)
        self._supervisor.reload()

    def _write_programs(self, units: tuple[Unit, ...]) -> None:
        for old in self._program_file("x").parent.glob("*.conf"):
            if old.stem not in {unit.name for unit in units}:
                old.unlink()
        write_atomically(self._config_file, render_supervisord(self._paths, None), mode=0o600)
        for unit in units:
            write_atomically(self._program_file(unit.name), render_supervisord(self._paths, unit), mode=0o600)

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = self._clock() + seconds
        while not condition():
            if self._clock() > deadline:
                return False
            self._sleep(_POLL_SECONDS)
        return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    """Return True for a process that ended and waits for its parent to look (as init in a container may never do)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


__all__ = ["ProcessEngine", "SupervisorGoneError"]
