"""The Socket.IO server of one instance: who may connect, and which channels they hear.

Clients send ``subscribe`` and ``unsubscribe`` with ``{"channel": ...}`` and get ``{"ok": true, "channel": ...}`` or
``{"ok": false, "error": {"code", "message", "hint"}}``. Everything else a client could send is refused the same way.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import socketio
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from socketio.exceptions import ConnectionRefusedError as Refused

from mistudio_server.errors import ForbiddenError, InvalidInputError, NotFoundError, StudioError, UnauthenticatedError
from mistudio_server.realtime.bus import Bus
from mistudio_server.realtime.events import is_channel
from mistudio_server.settings import Settings

#: Returns the scopes of a bearer token; raises ``UnauthenticatedError`` for one that is unknown, revoked or expired.
Authenticate = Callable[[str], Awaitable[Collection[str]]]
AsgiApp = Callable[..., Awaitable[None]]

SUBSCRIPTIONS_PER_CLIENT = 200
#: Clients send only small requests. Larger frames end the connection.
MAX_MESSAGE_BYTES = 16_384
_CHANNEL_HINT = "channels look like trainings/{id}/progress, datasets/{id}/progress, system/gpu/0 or system/host"
_TOKEN_HINT = "create one with `mistudio-server token create` and pass it as auth: {token: ...}"  # noqa: S105


class ChannelRequest(BaseModel):
    """What ``subscribe`` and ``unsubscribe`` take.

    ``since`` is the position that a returning client saw last. It is accepted so that clients can always send it; a
    server without a replay log answers ``"recovered": false``, and the client reads what it missed over HTTP.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: str = Field(min_length=1, max_length=200)
    since: int | str | None = None


class Hub:
    """One instance's clients. ``healthy`` is whether events of other instances and of workers arrive here."""

    def __init__(self, settings: Settings, authenticate: Authenticate) -> None:
        self._log = structlog.stdlib.get_logger(__name__)
        self._settings = settings
        self._authenticate = authenticate
        self._subscriptions: dict[str, set[str]] = {}
        self._bus = Bus(settings)
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            client_manager=self._bus,
            # None is "the same origin only"; an empty list would switch the check off.
            cors_allowed_origins=self._allows if settings.cors_origins else None,
            # Deflate belongs to the ASGI server, which has it off: +30 KB a connection and +5 us a message.
            http_compression=False,
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            ping_interval=20,
            ping_timeout=20,
        )
        for event, handler in (
            ("connect", self._connect),
            ("disconnect", self._disconnect),
            ("subscribe", self._subscribe),
            ("unsubscribe", self._unsubscribe),
            ("*", self._unknown),
        ):
            self._server.on(event, handler)

    def asgi(self, other: AsgiApp) -> AsgiApp:
        """Return ``other`` with ``/socket.io/`` in front of it; all else, the lifespan too, goes to ``other``."""
        app: AsgiApp = socketio.ASGIApp(self._server, other_asgi_app=other, socketio_path="socket.io")
        return app

    async def start(self) -> None:
        """Begin to listen on Redis, before the first client comes."""
        if not self._server.manager_initialized:
            self._server.manager_initialized = True
            self._bus.initialize()

    async def stop(self) -> None:
        """Stop listening. Connections are closed by the ASGI server."""
        if self._server.manager_initialized:
            await self._bus.close()
        await self._server.shutdown()

    @property
    def clients(self) -> int:
        """Connected clients."""
        return len(self._subscriptions)

    @property
    def healthy(self) -> bool:
        """True while this instance is subscribed to the bus."""
        return self._bus.listening

    @property
    def failures(self) -> int:
        """Failed attempts to reach Redis since the start."""
        return self._bus.outage.failures

    def _allows(self, origin: str | None, environ: dict[str, Any]) -> bool:
        """Tell whether a page of ``origin`` may connect: one of CORS_ORIGINS, or a page that we served ourselves."""
        if origin is None:
            return False
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", environ.get("wsgi.url_scheme", "http"))
        return origin in self._settings.cors_origins or origin == f"{scheme}://{environ.get('HTTP_HOST', '')}"

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        try:
            await self._admit(_token(environ, auth))
        except StudioError as error:
            raise Refused(error.detail, _problem(error)) from error
        except Exception as error:
            self._log.exception("socket_authentication_failed")
            raise Refused("the token could not be checked; try again in a moment") from error
        self._subscriptions[sid] = set()

    async def _admit(self, token: str | None) -> None:
        if token is None:
            if self._settings.needs_token:
                raise UnauthenticatedError("this server needs a bearer token, and none was sent", hint=_TOKEN_HINT)
            return
        if "read" not in await self._authenticate(token):
            raise ForbiddenError("the token has no read scope", hint="create one with --scopes read")

    async def _disconnect(self, sid: str, _reason: object = None) -> None:
        self._subscriptions.pop(sid, None)

    async def _subscribe(self, sid: str, data: object = None) -> dict[str, Any]:
        try:
            request = _parse(data)
            channels = self._channels(sid)
            if request.channel not in channels and len(channels) >= SUBSCRIPTIONS_PER_CLIENT:
                raise InvalidInputError(
                    f"a connection may have {SUBSCRIPTIONS_PER_CLIENT} subscriptions", hint="unsubscribe from some"
                )
        except StudioError as error:
            return {"ok": False, "error": _problem(error)}
        channels.add(request.channel)
        await self._server.enter_room(sid, request.channel)
        answer: dict[str, Any] = {"ok": True, "channel": request.channel}
        return answer if request.since is None else answer | {"recovered": False}

    async def _unsubscribe(self, sid: str, data: object = None) -> dict[str, Any]:
        try:
            channel = _parse(data).channel
            channels = self._channels(sid)
        except StudioError as error:
            return {"ok": False, "error": _problem(error)}
        channels.discard(channel)
        await self._server.leave_room(sid, channel)
        return {"ok": True, "channel": channel}

    async def _unknown(self, event: str, _sid: str, *_data: object) -> dict[str, Any]:
        error = NotFoundError(f"no event {event[:100]!r}", hint="send subscribe or unsubscribe")
        return {"ok": False, "error": _problem(error)}

    def _channels(self, sid: str) -> set[str]:
        try:
            return self._subscriptions[sid]
        except KeyError:
            raise NotFoundError("this connection is closing", hint="connect again") from None


def create_hub(settings: Settings, authenticate: Authenticate) -> Hub:
    """Return the hub of this instance; ``start`` makes it listen."""
    return Hub(settings, authenticate)


def _parse(data: object) -> ChannelRequest:
    try:
        request = ChannelRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise InvalidInputError(
            f"{where}: {first['msg']}", hint='send {"channel": "trainings/{id}/progress"}'
        ) from error
    if not is_channel(request.channel):
        raise InvalidInputError(f"no channel {request.channel!r}", hint=_CHANNEL_HINT)
    return request


def _token(environ: dict[str, Any], auth: object) -> str | None:
    """Return the token of ``auth: {"token": ...}``, else of the Authorization header."""
    if isinstance(auth, dict) and isinstance(auth.get("token"), str) and auth["token"]:
        token: str = auth["token"]
        return token
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _problem(error: StudioError) -> dict[str, Any]:
    return {"code": error.code, "message": error.detail, "hint": error.hint}
