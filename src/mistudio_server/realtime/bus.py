"""The Redis side of the hub: python-socketio's manager, with failures that are seen, logged once and short.

The stock manager logs at every attempt, waits up to 60 s between two and tells nobody: an instance can be deaf while it
looks healthy. This one waits at most a second and says whether it listens.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from socketio import AsyncRedisManager

from mistudio_server.realtime.outage import Outage
from mistudio_server.realtime.wire import bus_channel
from mistudio_server.settings import Settings

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 1.0


class Bus(AsyncRedisManager):  # type: ignore[misc]  # python-socketio has no types
    """Receives what any instance or worker published, and delivers it to the clients of this instance."""

    redis: Any
    pubsub: Any

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.redis_ws_url.get_secret_value(),
            channel=bus_channel(settings),
            redis_options={
                "socket_connect_timeout": 2.0,
                # Listening has no time limit: nothing may come for hours.
                "socket_timeout": None,
                "socket_keepalive": True,
                "retry": Retry(NoBackoff(), 0),
            },
        )
        self.outage = Outage("redis listener")
        self.listening = False

    async def close(self) -> None:
        """Stop listening and release connections."""
        self.thread.cancel()
        await asyncio.gather(self.thread, return_exceptions=True)
        self.listening = False
        await self._release()

    async def _publish(self, data: dict[str, Any]) -> None:
        """Tell other instances something. Our events go through a ``Publisher``; this is Socket.IO's own traffic."""
        try:
            await self.redis.publish(self.channel, self.json.dumps(data))
        except (RedisError, OSError, AttributeError) as error:  # AttributeError: never connected
            self.outage.failed(error)

    async def _redis_listen_with_retries(self) -> AsyncIterator[dict[str, Any]]:
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                self._redis_connect()
                await self.pubsub.subscribe(self.channel)
                self.listening, wait = True, _FIRST_WAIT_SECONDS
                self.outage.succeeded()
                async for message in self.pubsub.listen():
                    yield message
            except (RedisError, OSError) as error:
                self.outage.failed(error)
            self.listening = False
            await self._release()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads instances, hides nothing
            wait = min(_LONGEST_WAIT_SECONDS, wait * 2)

    async def _release(self) -> None:
        for connection in (self.pubsub, self.redis):
            if connection is not None:
                await connection.aclose()
        self.pubsub = self.redis = None
        self.connected = False
