"""Socket.IO instances on loopback and clients of them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import socketio
import uvicorn

Received = tuple[str, dict[str, Any]]


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for ``condition()``; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what we wait for has no event to set
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serve(app: Callable[..., Awaitable[None]]) -> AsyncIterator[str]:
    """Serve ``app`` with uvicorn on a free port of loopback and yield its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_per_message_deflate=False, ws="websockets-sansio")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server._serve([listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await task
        listener.close()


async def not_found(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answer 404 to everything: what is behind the hub in tests of the hub alone."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"not here"})


class SocketClient:
    """A connected client that keeps what it hears."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(reconnection=False)
        self.received: asyncio.Queue[Received] = asyncio.Queue()
        self.sio.on("*", self._keep)

    async def _keep(self, event: str, *data: Any) -> None:
        self.received.put_nowait((event, data[0]))

    async def call(self, event: str, data: Any) -> Any:
        """Emit and return the acknowledgement."""
        return await self.sio.call(event, data, timeout=20)

    async def subscribe(self, channel: str) -> None:
        """Subscribe and insist on it."""
        assert await self.call("subscribe", {"channel": channel}) == {"ok": True, "channel": channel}

    async def next(self, seconds: float = 20) -> Received:
        """Return the next event heard."""
        return await asyncio.wait_for(self.received.get(), seconds)

    async def hears_nothing(self, seconds: float = 0.3) -> bool:
        """Tell whether it stays quiet."""
        try:
            await self.next(seconds)
        except TimeoutError:
            return True
        return False


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[SocketClient]:
    """Yield a client connected by WebSocket."""
    client = SocketClient()
    await client.sio.connect(url, transports=["websocket"], **options)
    try:
        yield client
    finally:
        await client.sio.disconnect()


async def refusal(url: str, **options: Any) -> Any:
    """Connect, insist on being refused, and return what the server said (None: it refused the WebSocket itself)."""
    client = socketio.AsyncClient(reconnection=False)
    said: list[Any] = []
    client.on("connect_error", said.append)
    try:
        await client.connect(url, transports=["websocket"], **options)
    except socketio.exceptions.ConnectionError:
        return next((entry for entry in said if isinstance(entry, dict)), None)
    finally:
        await client.disconnect()
        if client.eio.http is not None:
            await client.eio.http.close()
    raise AssertionError("the connection was admitted")
