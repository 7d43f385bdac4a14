"""ASGI middleware: the request's id, its access log line, its metrics, and the last resort for errors."""

import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mistudio_server.observability.context import HEADER, bind_request_id
from mistudio_server.observability.logs import logger
from mistudio_server.observability.metrics import HttpMetrics
from mistudio_server.problem import internal_error

log = logger("mistudio_server.access")
#: Probes come every few seconds: they are counted, not logged.
_UNLOGGED = ("/api/health", "/health/live", "/health/ready")


class RequestContext:
    """Outermost middleware of an HTTP request."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = bind_request_id(Headers(scope=scope).get(HEADER))
        started = self._clock()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            if status:  # the answer has begun: all that is left is to cut it short
                log.exception("response_cut_short", path=scope["path"])
                raise
            await internal_error(scope["path"], error)(scope, receive, answer)
        finally:
            self._record(scope, status, self._clock() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        template = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.observe(scope["method"], template, status, seconds)
        if scope["path"] not in _UNLOGGED:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round(seconds * 1000, 2),
                client=(scope.get("client") or (None,))[0],
            )
