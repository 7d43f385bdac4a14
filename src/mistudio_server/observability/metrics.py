"""Prometheus metrics of one API process. They are served by the internal listener only."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class HttpMetrics:
    """Counts and times requests by route template, so that ids in paths do not multiply the series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route")
        self._requests = Counter("mistudio_http_requests", "Requests served.", (*labels, "status"), registry=registry)
        self._latency = Histogram(
            "mistudio_http_request_seconds", "Time to the last byte.", labels, buckets=_BUCKETS, registry=registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(method, route).observe(seconds)


class PoolCollector(Collector):
    """Use of the database pool, read when Prometheus asks."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the pool's connections in use, its size and what is open above it."""
        pool = self._engine.sync_engine.pool
        if isinstance(pool, QueuePool):
            yield _gauge("mistudio_db_pool_in_use", "Connections that a request holds.", pool.checkedout())
            yield _gauge("mistudio_db_pool_size", "Connections kept open at most.", pool.size())
            yield _gauge("mistudio_db_pool_overflow", "Connections open above the size.", max(0, pool.overflow()))


class ClientsCollector(Collector):
    """Number of connected Socket.IO clients of this instance."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        """Yield the number of clients."""
        yield _gauge("mistudio_websocket_clients", "Socket.IO clients connected to this instance.", self._count())


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def render(registry: CollectorRegistry) -> bytes:
    """Return the exposition text."""
    return generate_latest(registry)
