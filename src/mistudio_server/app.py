"""The API process: its parts, put together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

import mistudio_server
from mistudio_server import problem
from mistudio_server.api import openapi
from mistudio_server.api.base import BASE
from mistudio_server.api.body_limit import BodyLimit
from mistudio_server.api.internal import Internal
from mistudio_server.api.routers import activations, checkpoints, datasets, health, models, system, tokens, trainings
from mistudio_server.api.routers.health import Drain
from mistudio_server.db.engine import Database, create_engine
from mistudio_server.observability.context import HEADER
from mistudio_server.observability.logs import logger
from mistudio_server.observability.metrics import ClientsCollector, HttpMetrics, PoolCollector
from mistudio_server.observability.middleware import RequestContext
from mistudio_server.realtime.hub import Authenticate, Hub, create_hub
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.services.capability import torch_installed as find_torch
from mistudio_server.services.first_use import JobQueueOnFirstUse
from mistudio_server.services.ports import JobQueue
from mistudio_server.services.removal import sweep_leftovers
from mistudio_server.services.studio import Studio
from mistudio_server.services.tokens import authenticate
from mistudio_server.settings import Settings

_UPLOADS = frozenset({f"{BASE}/datasets/upload", f"{BASE}/models/upload"})

log = logger(__name__)


def create_app(
    settings: Settings,
    *,
    jobs: JobQueue | None = None,
    publisher: Publisher | None = None,
    torch_installed: Callable[[], bool] = find_torch,
) -> FastAPI:
    """Return the public application; nothing is connected before its lifespan begins.

    ``jobs``, ``publisher`` and ``torch_installed`` are for tests; by default they are Celery, Redis and a look at
    what is installed.
    """
    studio = Studio(
        settings=settings,
        database=Database(create_engine(settings, application_name=f"mistudio {settings.mistudio_instance}")),
        publisher=publisher or _redis_publisher(settings),
        jobs=jobs or _celery_queue(settings),
        torch_installed=torch_installed,
    )
    hub = create_hub(settings, _scopes_of(studio.database))
    app = FastAPI(
        title="MiStudio",
        version=mistudio_server.__version__,
        description=openapi.DESCRIPTION,
        lifespan=_lifespan(studio, hub),
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere, which a lab without internet does not have
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.studio = studio
    app.state.hub = hub
    app.state.drain = Drain()
    app.state.registry = CollectorRegistry()
    _route(app)
    problem.install(app)
    _wrap(app, settings, hub)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


def create_internal_app(app: FastAPI) -> Starlette:
    """Return the application of the internal listener, which shares the parts of the public one."""
    studio: Studio = app.state.studio
    return Internal(studio.settings, app.state.registry, studio.publisher, app.state.drain).app()


def _route(app: FastAPI) -> None:
    for resource in (datasets, models, activations, trainings, checkpoints, tokens, system, health):
        app.include_router(resource.router)


def _wrap(app: FastAPI, settings: Settings, hub: Hub) -> None:
    """Add middleware; the last added is the outermost. Socket.IO's own requests pass none of the others."""
    registry: CollectorRegistry = app.state.registry
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Range", "If-None-Match", HEADER],
            expose_headers=[HEADER, "ETag", "Content-Range"],
            max_age=600,
        )
    app.add_middleware(BodyLimit, limit_for=_body_limit(settings))
    app.add_middleware(RequestContext, metrics=HttpMetrics(registry))
    app.add_middleware(hub.asgi)  # any callable that returns an ASGI application will do
    registry.register(PoolCollector(app.state.studio.database.engine))
    registry.register(ClientsCollector(lambda: hub.clients))


def _body_limit(settings: Settings) -> Callable[[Scope], int]:
    def limit(scope: Scope) -> int:
        return settings.max_upload_bytes if scope["path"] in _UPLOADS else settings.max_body_bytes

    return limit


def _lifespan(studio: Studio, hub: Hub) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.data_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(sweep_leftovers, studio.data_dir)
        await hub.start()
        log.info("started", version=mistudio_server.__version__, tokens_needed=studio.settings.needs_token)
        try:
            yield
        finally:
            app.state.drain.draining = True
            await hub.stop()
            await studio.publisher.close()
            await studio.database.close()
            log.info("stopped")

    return lifespan


def _scopes_of(database: Database) -> Authenticate:
    async def scopes(token: str) -> Collection[str]:
        return (await authenticate(database, token)).scopes

    return scopes


def _redis_publisher(settings: Settings) -> Publisher:
    from mistudio_server.realtime.redis_publisher import RedisPublisher  # noqa: PLC0415 - not for tests

    return RedisPublisher(settings)


def _celery_queue(settings: Settings) -> JobQueue:
    def make() -> JobQueue:
        from mistudio_server.workers.dispatch import CeleryJobQueue  # noqa: PLC0415 - see JobQueueOnFirstUse

        return CeleryJobQueue(settings)

    return JobQueueOnFirstUse(make)
