"""The worker and beat processes."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_shutting_down

from mistudio_server.settings import Settings
from mistudio_server.workers.app import create_celery
from mistudio_server.workers.beat import SCHEDULE
from mistudio_server.workers.names import JOB_KINDS, QUEUES
from mistudio_server.workers.supervisor import CHILD_ARGV, Supervisor
from mistudio_server.workers.tasks import register_tasks
from mistudio_server.workers.timing import Timing

#: Tasks are short. Two threads answer pings while maintenance, which may wait for a lock, has the others.
_THREADS = 4
_END_SECONDS = 28.0


def run_worker(
    settings: Settings,
    queues: Sequence[str] = QUEUES,
    *,
    child_argv: Sequence[str] = CHILD_ARGV,
    timing: Timing | None = None,
) -> int:
    """Run a worker until SIGTERM or SIGINT and return its exit code.

    On SIGTERM it takes nothing more, its children checkpoint and end, their runs go back to the queue, and it is gone
    within 30 s. Redis may be away at any time, from the start too.
    """
    _quieten_celery()
    kinds = [kind for kind in JOB_KINDS if kind in queues]
    supervisor = Supervisor(settings, kinds, child_argv=child_argv, timing=timing)
    app = create_celery(settings)
    app.conf.worker_consumer = "mistudio_server.workers.consumer:PatientConsumer"
    register_tasks(app, settings, supervisor, pid=os.getpid())
    owner = _Owner(supervisor)
    owner.start()
    worker_shutting_down.connect(owner.end, weak=False)
    code = _consume(app, settings, queues)
    supervisor.stop()
    owner.join(_END_SECONDS)
    return 1 if owner.failed else code


def run_beat(settings: Settings, schedule_dir: Path | None = None) -> int:
    """Run beat until SIGTERM and return its exit code. When it last ran what is kept in ``schedule_dir``."""
    folder = schedule_dir or settings.data_dir / ".beat"
    folder.mkdir(parents=True, exist_ok=True)
    app = create_celery(settings)
    app.conf.beat_schedule = SCHEDULE
    app.conf.beat_max_loop_interval = 30
    try:
        app.Beat(schedule=str(folder / "schedule"), quiet=True, loglevel=settings.log_level.upper()).run()
    except (SystemExit, KeyboardInterrupt) as stop:
        code = getattr(stop, "code", 0)
        return code if isinstance(code, int) else 0
    return 0


def _consume(app: Celery, settings: Settings, queues: Sequence[str]) -> int:
    """Run Celery's own part in the main thread, which gets the signals."""
    worker = app.Worker(
        pool="threads",
        concurrency=_THREADS,
        queues=list(queues),
        hostname=f"{settings.mistudio_instance}@{os.uname().nodename}",
        loglevel=settings.log_level.upper(),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        optimization="fair",
    )
    try:
        worker.start()
    except (SystemExit, KeyboardInterrupt) as stop:
        code = getattr(stop, "code", 0)
        return code if isinstance(code, int) else 0
    return int(worker.exitcode or 0)


def _quieten_celery() -> None:
    """Drop Celery's two lines per task: the reaper alone would write 17,000 a day. Errors stay."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Owner(threading.Thread):
    """The thread of the supervisor. When it fails, the process ends, so that whoever started it starts another."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._log = structlog.stdlib.get_logger(__name__)
        self._supervisor = supervisor
        self.failed = False

    def run(self) -> None:
        """Own runs until told to end."""
        try:
            asyncio.run(self._supervisor.run())
        except Exception:  # noqa: BLE001 - logged whole, and the process ends for it
            self.failed = True
            self._log.exception("supervisor_failed")
            os.kill(os.getpid(), signal.SIGTERM)

    def end(self, **_: Any) -> None:
        """Celery was told to stop: so are we, at once and at the same time."""
        self._supervisor.stop()
