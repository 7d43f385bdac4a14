"""Waking workers: how the API says that a row was queued."""

import asyncio
import time

import structlog
from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError

from mistudio_server.realtime.outage import Clock, Outage
from mistudio_server.services.ports import JobKind
from mistudio_server.settings import Settings
from mistudio_server.workers.app import create_celery
from mistudio_server.workers.names import REQUEST_ID_HEADER, RUN_NEXT

_LONGEST_SECONDS = 2.0
_RETRY = {"max_retries": 2, "interval_start": 0.05, "interval_step": 0.1, "interval_max": 0.2}
#: A wake-up that nobody took is worthless by then: workers look at the table every few seconds.
_EXPIRES_SECONDS = 60


class CeleryJobQueue:
    """A ``JobQueue`` that sends ``mistudio.jobs.run_next``.

    A dead Redis costs a caller at most two seconds once, then nothing while the outage lasts: workers find the row
    without us.
    """

    def __init__(self, settings: Settings, *, app: Celery | None = None, clock: Clock = time.monotonic) -> None:
        self._log = structlog.stdlib.get_logger(__name__)
        self._app = app or create_celery(settings)
        self._outage = Outage("celery broker", clock=clock)

    @property
    def healthy(self) -> bool:
        """False from a failed attempt until the next success."""
        return self._outage.healthy

    async def wake(self, kind: JobKind, request_id: str | None) -> None:
        """Tell a worker that a row of this kind was queued. Never raises."""
        if self._outage.pausing:
            self._outage.skipped()
            return
        try:
            await asyncio.wait_for(asyncio.to_thread(self._send, kind, request_id), _LONGEST_SECONDS)
        except (CeleryError, KombuError, OSError) as error:  # OSError: TimeoutError too
            self._outage.failed(error)
        else:
            self._outage.succeeded()

    def close(self) -> None:
        """Release connections."""
        self._app.close()

    def _send(self, kind: JobKind, request_id: str | None) -> None:
        self._app.send_task(
            RUN_NEXT,
            args=[kind],
            queue=kind,
            headers={REQUEST_ID_HEADER: request_id},
            expires=_EXPIRES_SECONDS,
            retry=True,
            retry_policy=_RETRY,
            ignore_result=True,
        )
