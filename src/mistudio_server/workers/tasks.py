"""The Celery tasks. They are short: each wakes or asks the supervisor, which owns the work."""

from collections.abc import Callable
from typing import Any, Protocol

import structlog
from celery import Celery
from celery.signals import task_prerun

from mistudio_server.observability.context import bind_request_id
from mistudio_server.settings import Settings
from mistudio_server.workers.names import PING, PREMAKE_PARTITIONS, REAP_RUNS, REQUEST_ID_HEADER, RUN_NEXT

_MAINTENANCE_SECONDS = 30.0


class Runtime(Protocol):
    """What tasks need of the supervisor; all of it may be called from any thread."""

    @property
    def running(self) -> list[str]:
        """Ids of the runs in the slots."""
        ...

    def wake(self) -> None:
        """Look at the queue now."""
        ...

    def submit(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in the supervisor's loop and return its future."""
        ...

    async def reap(self) -> list[str]:
        """Requeue or fail the runs of silent workers."""
        ...

    async def premake_partitions(self) -> list[str]:
        """Make the partitions of the coming months."""
        ...


def register_tasks(app: Celery, settings: Settings, runtime: Runtime, *, pid: int) -> None:
    """Give ``app`` its tasks, bound to the supervisor of this process."""
    log = structlog.stdlib.get_logger(__name__)

    def run_next(kind: str) -> None:
        """Look at the queue: a row of this kind was queued."""
        log.debug("wakened", kind=kind)
        runtime.wake()

    def ping() -> dict[str, Any]:
        """Answer who we are: a worker that answers processes tasks, and says what it is busy with."""
        return {
            "instance": settings.mistudio_instance,
            "release": settings.mistudio_release,
            "pid": pid,
            "running": runtime.running,
        }

    def reap_runs() -> list[str]:
        """Requeue or fail the runs whose worker fell silent."""
        requeued: list[str] = runtime.submit(runtime.reap).result(_MAINTENANCE_SECONDS)
        return requeued

    def premake_partitions() -> list[str]:
        """Make the partitions of the coming months."""
        made: list[str] = runtime.submit(runtime.premake_partitions).result(_MAINTENANCE_SECONDS)
        return made

    app.task(name=RUN_NEXT, shared=False)(run_next)
    app.task(name=PING, shared=False, ignore_result=False)(ping)
    app.task(name=REAP_RUNS, shared=False)(reap_runs)
    app.task(name=PREMAKE_PARTITIONS, shared=False)(premake_partitions)
    task_prerun.connect(_bind_request, weak=False, dispatch_uid="mistudio-request")


def _bind_request(task: Any = None, **_: Any) -> None:
    """Make the request that caused the task the current one, for its logs."""
    headers = getattr(task.request, "headers", None) or {}
    bind_request_id(headers.get(REQUEST_ID_HEADER) or task.request.get(REQUEST_ID_HEADER))
