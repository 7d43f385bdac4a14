"""Structured logs: one JSON object a line on standard output, from our loggers and from the libraries' alike."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from mistudio_server.observability.context import current_request_id
from mistudio_server.settings import Settings

#: Loggers that bring handlers of their own: they are made to pass their records on to ours.
_LIBRARIES = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "celery",
    "celery.task",
    "sqlalchemy",
    "alembic",
    "socketio",
)
_QUIET = ("sqlalchemy.engine", "uvicorn.access", "httpx", "engineio.server", "socketio.server", "asyncio")


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: ``log.info("event_name", key=value)``."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


def configure(settings: Settings, *, unit: str) -> None:
    """Route every logger of this process to standard output; ``unit`` is backend, worker, beat or cli."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _identify(unit, settings),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.UnicodeDecoder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_renderers(settings.log_format))
    )
    _take_over(handler, level)


def _identify(unit: str, settings: Settings) -> Processor:
    constant = {"unit": unit, "instance": settings.mistudio_instance, "release": settings.mistudio_release}

    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(constant)
        request_id = current_request_id()
        if request_id is not None:
            event.setdefault("request_id", request_id)
        return event

    return add


def _renderers(log_format: str) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "console":
        return [strip, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _take_over(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
