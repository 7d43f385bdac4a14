"""Stopping an environment, and with ``purge`` removing its files."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistudio_ops.domain.backup import MANIFEST_FILE
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.lock import command_line, exclusive
from mistudio_ops.drivers.processes import Survivor, referring_to
from mistudio_ops.engines.base import Engine
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import is_ours, marker
from mistudio_ops.errors import NothingFoundError, PreconditionError, UsageError, VerificationError
from mistudio_ops.presentation.reporter import Reporter

#: What is told to end with its supervisor may need this long (children of units that were killed).
SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DownResult:
    """What was stopped and removed. ``kept_data`` is a DATA_DIR outside the state directory, which is never removed.

    Neither are ``kept_backups``: where they are, if there are any.
    """

    environment: str
    stopped: tuple[str, ...]
    was_running: bool
    purged: bool
    kept_data: str | None = None
    kept_backups: str | None = None


def down(
    environment: Environment,
    reporter: Reporter,
    *,
    purge: bool = False,
    confirm: str | None = None,
    engine: Engine | None = None,
    survivors: Callable[[Path], tuple[Survivor, ...]] = referring_to,
    sleep: Callable[[float], None] = time.sleep,
) -> DownResult:
    """Stop all units and the supervisor; with ``purge`` remove the state directory.

    Raises:
        NothingFoundError: nothing was deployed there.
        UsageError: ``purge`` without the environment's name in ``confirm``.
        PreconditionError: the state directory holds what we did not make; nothing was stopped or removed.
        VerificationError: processes are left; they are named, and nothing is removed.
    """
    if purge:
        _check_confirmation(environment, confirm)
    if not marker(environment.paths).is_file():
        raise NothingFoundError(
            f"nothing is deployed in {environment.state_dir}", hint="is MISTUDIO_STATE_DIR as it was for the deploy?"
        )
    if purge:
        _check_only_ours(environment)
    engine = engine or ProcessEngine(environment.paths)
    with exclusive(environment.paths.lock, command_line()):
        stopped = tuple(name for name, state in engine.states().items() if state.pid is not None)
        was_running = engine.supervisor_pid() is not None
        with reporter.step("stop the units") as step:
            engine.shutdown()
            _check_none_left(environment, survivors, sleep)
            step.detail(", ".join(stopped) or "none was running")
        if purge:
            with reporter.step(f"remove {environment.state_dir}"):
                _remove(environment)
    return DownResult(
        environment.name, stopped, was_running, purge, _outside_data(environment), _kept_backups(environment)
    )


def _check_confirmation(environment: Environment, confirm: str | None) -> None:
    if confirm != environment.name:
        raise UsageError(
            f"--purge removes the database, checkpoints and secrets of {environment.name} in {environment.state_dir}; "
            + ("it was not confirmed" if confirm is None else f"--confirm says {confirm!r}"),
            hint=f"mistudio-ops down {environment.name} --purge --confirm {environment.name}",
        )


def _check_only_ours(environment: Environment) -> None:
    strange = sorted(path.name for path in environment.state_dir.iterdir() if not is_ours(path.name, environment.name))
    if strange:
        raise PreconditionError(
            f"{environment.state_dir} holds what a deploy did not put there: {', '.join(strange[:10])}",
            hint="move it elsewhere, then purge again; nothing was stopped or removed",
        )


def _check_none_left(
    environment: Environment, survivors: Callable[[Path], tuple[Survivor, ...]], sleep: Callable[[float], None]
) -> None:
    waited = 0.0
    while (left := survivors(environment.state_dir)) and waited < SETTLE_SECONDS:
        sleep(0.1)
        waited += 0.1
    if left:
        raise VerificationError(
            "still running: " + "; ".join(f"process {one.pid} ({one.command})" for one in left),
            hint=f"look at them; `kill {' '.join(str(one.pid) for one in left)}` ends them",
        )


def _remove(environment: Environment) -> None:
    root = environment.state_dir
    mark = marker(environment.paths)
    # The marker goes last but the folder: a purge that is cut off can be repeated.
    for path in sorted(root.iterdir()):
        if path in {mark, environment.paths.lock}:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    environment.paths.lock.unlink(missing_ok=True)
    mark.unlink()
    root.rmdir()


def _outside_data(environment: Environment) -> str | None:
    return None if environment.data.is_relative_to(environment.state_dir) else str(environment.data)


def _kept_backups(environment: Environment) -> str | None:
    return str(environment.backups) if any(environment.backups.glob(f"*/{MANIFEST_FILE}")) else None
