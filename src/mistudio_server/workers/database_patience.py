"""Going on while PostgreSQL is away: a training must not end because its database restarts."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import sqlalchemy.exc
import stamina

from mistudio_server.realtime.outage import Outage

T = TypeVar("T")
_AWAY = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,  # no connection of the pool became free
    psycopg.OperationalError,  # from COPY, which SQLAlchemy does not wrap
    psycopg.InterfaceError,
    OSError,
)


def is_outage(error: BaseException) -> bool:
    """Tell whether the database could not be reached or gave up, so that the same call may succeed later.

    Deadlocks, lock timeouts and a database that is out of resources are among them; wrong SQL and violated
    constraints are not.
    """
    lost = isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, _AWAY)


class Patience:
    """Repeats database calls through an outage until they succeed or ``enough`` says so. ``outage`` may be shared."""

    def __init__(self, enough: Callable[[], bool], outage: Outage) -> None:
        self._enough = enough
        self._outage = outage

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what ``call`` returns, as soon as the database lets it.

        Raises:
            Exception: what ``call`` raised, when it was no outage or there was enough of it.
        """
        async for attempt in stamina.retry_context(
            on=self._again, attempts=None, timeout=None, wait_initial=0.1, wait_max=1.0, wait_jitter=0.1
        ):
            with attempt:
                result = await call()
        self._outage.succeeded()
        return result

    async def once(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what ``call`` returns, or None during an outage."""
        try:
            result = await call()
        except Exception as error:
            if not is_outage(error):
                raise
            self._outage.failed(error)
            return None
        self._outage.succeeded()
        return result

    def _again(self, error: Exception) -> bool:
        if not is_outage(error):
            return False
        self._outage.failed(error)
        return not self._enough()
