"""ASGI middleware that refuses a body over the limit, whether or not its length is declared."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mistudio_server.problem import body_too_large


class _TooLargeError(Exception):
    """More bytes arrived than the limit allows."""


class BodyLimit:
    """Counts the bytes that really arrive: a chunked body carries no Content-Length to believe."""

    def __init__(self, app: ASGIApp, limit_for: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_for = limit_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_for(scope)
        if _declared(scope) > limit:
            await body_too_large(scope["path"], limit)(scope, receive, send)
            return
        await self._count(limit, scope, receive, send)

    async def _count(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        answering = False
        over = False

        async def counted() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                over = True
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal answering
            if over and not answering:
                return  # whatever the handler made of the cut body, the answer is 413
            answering = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except Exception:
            if answering or not over:
                raise
        if over and not answering:
            await body_too_large(scope["path"], limit)(scope, receive, send)


def _declared(scope: Scope) -> int:
    value = Headers(scope=scope).get("content-length", "0")
    return int(value) if value.isdigit() else 0
