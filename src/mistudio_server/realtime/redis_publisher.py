"""Publishing straight to Redis: how the API and workers reach the subscribers of every instance."""

import time

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mistudio_server.realtime.events import Event
from mistudio_server.realtime.outage import Clock, Outage
from mistudio_server.realtime.wire import bus_channel, encode
from mistudio_server.settings import Settings

_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 2.0


class RedisPublisher:
    """A ``Publisher``. While Redis is out it tries at most every two seconds and drops what comes between.

    Dropped events are counted, not kept: progress is superseded by the next event, and what must survive (states,
    checkpoints, metrics) is in PostgreSQL before it is published.
    """

    def __init__(self, settings: Settings, *, clock: Clock = time.monotonic) -> None:
        self._log = structlog.stdlib.get_logger(__name__)
        self._channel = bus_channel(settings)
        self._outage = Outage("redis publisher", clock=clock)
        self._redis = redis.asyncio.Redis.from_url(
            settings.redis_ws_url.get_secret_value(),
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            socket_keepalive=True,
            # One more try at once: after a restart of Redis the pooled connection is dead but Redis is not.
            retry=Retry(NoBackoff(), 1),
        )
        self.published = 0

    @property
    def healthy(self) -> bool:
        """False from a failed attempt until the next success."""
        return self._outage.healthy

    @property
    def dropped(self) -> int:
        """Events that no subscriber got because of an outage or of a payload that cannot be encoded."""
        return self._outage.failures

    async def publish(self, event: Event) -> None:
        """Send ``event``; never raises."""
        if self._outage.pausing:
            self._outage.skipped()
            return
        try:
            message = encode(event)
        except TypeError as error:
            self._outage.skipped()
            self._log.exception("event_not_encodable", event_name=event.name, error=str(error))
            return
        try:
            await self._redis.publish(self._channel, message)
        except (RedisError, OSError) as error:
            self._outage.failed(error)
        else:
            self.published += 1
            self._outage.succeeded()

    async def close(self) -> None:
        """Release connections."""
        await self._redis.aclose()
