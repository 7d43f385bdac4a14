"""The internal listener: /metrics for Prometheus, events of workers that cannot reach Redis, draining."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mistudio_server.api.routers.health import Drain
from mistudio_server.errors import InvalidInputError, StudioError, UnauthenticatedError
from mistudio_server.observability.metrics import CONTENT_TYPE, render
from mistudio_server.problem import problem_response
from mistudio_server.realtime.events import EVENTS, Event, make_event
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.settings import Settings

_EVENT_LIMIT = 256 * 1024
Handler = Callable[[Request], Awaitable[Response]]


class PostedEvent(BaseModel):
    """What a worker posts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str
    channel: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class Internal:
    """The handlers and what they need."""

    settings: Settings
    registry: CollectorRegistry
    publisher: Publisher
    drain: Drain

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/metrics", self._guarded(self._metrics)),
            Route("/internal/events", self._guarded(self._events), methods=["POST"]),
            Route("/internal/drain", self._guarded(self._drain), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refused})  # type: ignore[dict-item]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                self._check_token(request)
                return await handler(request)
            except StudioError as error:
                return problem_response(request, error)

        return guarded

    def _check_token(self, request: Request) -> None:
        """Compare in constant time, so that the answer's delay tells nothing about the token."""
        if self.settings.internal_token is None:
            return
        wanted = f"Bearer {self.settings.internal_token.get_secret_value()}".encode()
        open_path = request.url.path == "/metrics" and _from_loopback(request)
        if not open_path and not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted):
            raise UnauthenticatedError("The internal token is missing or wrong.", hint="Send INTERNAL_TOKEN as bearer.")

    async def _metrics(self, _: Request) -> Response:
        return Response(render(self.registry), media_type=CONTENT_TYPE)

    async def _events(self, request: Request) -> Response:
        event = _event_of(await _body(request))
        await self.publisher.publish(event)
        return JSONResponse({"status": "published"}, 202)

    async def _drain(self, _: Request) -> Response:
        self.drain.draining = True
        return JSONResponse({"status": "draining"}, 202)


def _from_loopback(request: Request) -> bool:
    return request.client is not None and request.client.host in ("127.0.0.1", "::1")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _EVENT_LIMIT:
            raise InvalidInputError(f"An event is at most {_EVENT_LIMIT} bytes.", hint="Send less in it.")
    return bytes(body)


def _event_of(body: bytes) -> Event:
    try:
        posted = PostedEvent.model_validate_json(body)
        kind = EVENTS.get(posted.name)
        if kind is None:
            raise InvalidInputError(f"There is no event {posted.name!r}.", hint=f"Known: {', '.join(EVENTS)}.")
        return make_event(posted.name, posted.channel, kind.payload.model_validate(posted.payload))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidInputError(f"{field}: {first['msg']}", hint="Send name, channel and payload.") from error
    except ValueError as error:
        raise InvalidInputError(str(error), hint="See the event registry: docs/WEBSOCKET_API.md.") from error


async def _refused(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"status": error.status_code, "detail": error.detail}, error.status_code, error.headers)
