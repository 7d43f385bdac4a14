"""Looking at an environment: what runs, since when, how often it was restarted, how much memory it takes."""

import time
from collections.abc import Callable
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.status import Restarts, Status, UnitStatus, restarts
from mistudio_ops.domain.units import UnitState
from mistudio_ops.drivers.processes import proportional_memory
from mistudio_ops.drivers.releases import current_release
from mistudio_ops.engines.base import Engine
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import marker
from mistudio_ops.errors import NothingFoundError

_LOG_LIMIT = 8 * 1024**2


def status(
    environment: Environment,
    *,
    engine: Engine | None = None,
    now: Callable[[], float] = time.time,
    memory: Callable[[int], int | None] = proportional_memory,
) -> Status:
    """Return what the environment's units are doing.

    Raises:
        NothingFoundError: it was never deployed here.
    """
    engine = engine or ProcessEngine(environment.paths)
    if not marker(environment.paths).is_file():
        raise NothingFoundError(
            f"nothing is deployed in {environment.state_dir}", hint=f"mistudio-ops deploy {environment.name}"
        )
    release = current_release(environment.paths)
    pid = engine.supervisor_pid()
    counts = restarts(_supervisor_log(environment))
    units = tuple(
        _unit(engine, state, counts.get(name, Restarts()), now(), memory)
        for name, state in sorted(engine.states().items(), key=lambda item: _place(item[0]))
    )
    return Status(
        environment=environment.name,
        url=environment.url,
        state_dir=str(environment.state_dir),
        data_dir=str(environment.data),
        running=pid is not None,
        release=release.id if release else None,
        deployed=release.created if release else None,
        supervisor_pid=pid,
        units=units,
        memory=memory(pid) if pid is not None else None,  # supervisord and all its units
    )


def _unit(
    engine: Engine, state: UnitState, counted: Restarts, now: float, memory: Callable[[int], int | None]
) -> UnitStatus:
    definition = engine.definition(state.name)
    return UnitStatus(
        name=state.name,
        state=state.state,
        pid=state.pid,
        uptime=round(max(0.0, now - state.since), 1) if state.pid and state.since is not None else None,
        restarts=counted.count,
        last_end=counted.last_end,
        memory=memory(state.pid) if state.pid is not None else None,
        ports=definition.ports if definition is not None else (),
    )


def _supervisor_log(environment: Environment) -> str:
    path = environment.paths.logs / "supervisord.log"
    rotated = [path.with_name(f"{path.name}.{number}") for number in (2, 1)]
    return "".join(_text(part) for part in (*rotated, path))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_LOG_LIMIT:]
    except FileNotFoundError:
        return ""


def _place(name: str) -> tuple[int, str]:
    order = ("proxy", "backend", "worker", "beat", "redis", "postgres")
    kind = name.partition("-")[0]
    return (order.index(kind) if kind in order else len(order), f"{name:0>20}")
