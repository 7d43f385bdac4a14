"""Running the API: the public and the internal listener on one event loop, stopped together by SIGTERM."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette

from mistudio_server.settings import Settings

#: Proxies are believed about the client's address only when they connect from this machine.
_TRUSTED_PROXIES = ["127.0.0.1", "::1"]


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it: there are two of them on one loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def run(settings: Settings, app: FastAPI, internal: Starlette) -> int:
    """Serve both applications until SIGTERM or SIGINT; return the exit code."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(_serve(settings, app, internal))


async def _serve(settings: Settings, app: FastAPI, internal: Starlette) -> int:
    servers = [_Server(_config(app, settings, settings.host, settings.port, lifespan="on"))]
    if settings.internal_port is not None:
        servers.append(_Server(_config(internal, settings, settings.internal_host, settings.internal_port)))
    _stop_on_signals(app, servers)
    tasks = [asyncio.create_task(_one(server, servers)) for server in servers]
    await asyncio.gather(*tasks)
    return 0 if all(server.started for server in servers) else 1


async def _one(server: _Server, servers: list[_Server]) -> None:
    """Serve with one; when it ends, for whatever reason (a port in use, a failed start), the others end as well."""
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way to say that it cannot bind; it has logged why
        server.started = False
    finally:
        for other in servers:
            other.should_exit = True


def _stop_on_signals(app: FastAPI, servers: list[_Server]) -> None:
    def stop() -> None:
        app.state.drain.draining = True
        for server in servers:
            server.force_exit = server.should_exit  # the second signal does not wait
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _config(app: Any, settings: Settings, host: str, port: int, lifespan: str = "off") -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan=lifespan,  # type: ignore[arg-type]
        log_config=None,  # ours is in place
        access_log=False,  # RequestContext writes the access log
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=_TRUSTED_PROXIES,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
        ws_per_message_deflate=False,  # +30 KB a connection, +5 us a message; payloads are small
    )
