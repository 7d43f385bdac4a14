"""Celery's consumer, coming back soon after Redis does, and not ended by a list entry that is no message.

The stock one waits 2, 4, 6 ... 30 s between two attempts: after a restart of Redis a worker could be deaf to pings
for half a minute, and it logs a line with each. And what kombu cannot take apart ends the whole worker.
"""

from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from mistudio_server.realtime.outage import Outage

_FIRST_SECONDS = 0.2
_STEP_SECONDS = 0.2
_LONGEST_SECONDS = 1.0


class PatientConsumer(Consumer):  # type: ignore[misc]  # celery has no types
    """Reconnects at least once a second, for ever, and logs once per outage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._outage = Outage("celery broker")
        super().__init__(*args, **kwargs)
        self._stock_loop, self.loop = self.loop, self._surviving_loop

    def _surviving_loop(self, *args: Any) -> None:
        """Run Celery's loop. What it trips over has left the queue already: a new connection goes on behind it."""
        try:
            self._stock_loop(*args)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            structlog.stdlib.get_logger(__name__).exception("message_not_understood")
            raise ConnectionResetError("a message could not be taken apart; connecting anew") from error

    def ensure_connected(self, conn: Any) -> Any:
        """Return ``conn`` once it is connected; ends early when the worker is to stop."""

        def failed(error: Exception, _interval: float) -> None:
            maybe_shutdown()
            self._outage.failed(error)

        connected = conn.ensure_connection(
            failed,
            None,
            interval_start=_FIRST_SECONDS,
            interval_step=_STEP_SECONDS,
            interval_max=_LONGEST_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        self._outage.succeeded()
        return connected
