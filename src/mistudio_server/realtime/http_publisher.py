"""Publishing through an API instance (``WEBSOCKET_EMIT_URL``): for workers that cannot reach Redis."""

import time

import httpx
import orjson
import structlog

from mistudio_server.realtime.events import Event
from mistudio_server.realtime.outage import Clock, Outage
from mistudio_server.settings import Settings

_SECONDS = 2.0


class HttpPublisher:
    """A ``Publisher`` that posts to ``.../internal/events``; the same contract as ``RedisPublisher``."""

    def __init__(
        self, settings: Settings, *, clock: Clock = time.monotonic, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        if settings.websocket_emit_url is None:
            raise ValueError("WEBSOCKET_EMIT_URL is not set: use the Redis publisher")
        self._log = structlog.stdlib.get_logger(__name__)
        self._url = settings.websocket_emit_url
        self._outage = Outage("http publisher", clock=clock)
        headers = {"Content-Type": "application/json"}
        if settings.internal_token is not None:
            headers["Authorization"] = f"Bearer {settings.internal_token.get_secret_value()}"
        self._client = httpx.AsyncClient(headers=headers, timeout=_SECONDS, trust_env=False, transport=transport)
        self.published = 0

    @property
    def healthy(self) -> bool:
        """False from a failed attempt until the next success."""
        return self._outage.healthy

    @property
    def dropped(self) -> int:
        """Events that no subscriber got."""
        return self._outage.failures

    async def publish(self, event: Event) -> None:
        """Post ``event``; never raises. A refusal (4xx) is logged with the answer and is no outage."""
        if self._outage.pausing:
            self._outage.skipped()
            return
        try:
            body = orjson.dumps({"name": event.name, "channel": event.channel, "payload": event.payload})
        except TypeError as error:
            self._outage.skipped()
            self._log.exception("event_not_encodable", event_name=event.name, error=str(error))
            return
        try:
            answer = await self._client.post(self._url, content=body)
            if not answer.is_client_error:
                answer.raise_for_status()
        except httpx.HTTPError as error:
            self._outage.failed(error)
            return
        self._outage.succeeded()
        if answer.is_client_error:
            self._outage.skipped()
            self._log.error("event_refused", url=self._url, status=answer.status_code, answer=answer.text[:200])
        else:
            self.published += 1

    async def close(self) -> None:
        """Release connections."""
        await self._client.aclose()
