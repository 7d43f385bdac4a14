"""Engines and sessions. Reading and writing sessions are distinct types, so that a query cannot write by accident."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from mistudio_server.settings import Settings


class ReadSession(AsyncSession):
    """A session whose transaction is READ ONLY."""


class WriteSession(AsyncSession):
    """A session that commits when its block ends without an error."""


def database_url(settings: Settings) -> URL:
    """Return the URL with its driver, as SQLAlchemy's own type (which hides the password when printed)."""
    return make_url(settings.database_url.get_secret_value())


def create_engine(settings: Settings, *, application_name: str, pool_size: int | None = None) -> AsyncEngine:
    """Return an engine with the pool of the settings; nothing is connected yet.

    ``pool_size`` is for processes that need fewer connections than an API instance, as a worker does.
    """
    small = pool_size is not None
    return create_async_engine(
        database_url(settings),
        pool_size=pool_size if pool_size is not None else settings.db_pool_size,
        max_overflow=0 if small else settings.db_max_overflow,
        pool_timeout=settings.db_pool_timeout_seconds,
        pool_pre_ping=settings.db_pool_pre_ping,
        connect_args={"application_name": application_name, "connect_timeout": 5},
    )


class Database:
    """The two kinds of session over one pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._readers = async_sessionmaker(
            engine.execution_options(postgresql_readonly=True), class_=ReadSession, expire_on_commit=False
        )
        self._writers = async_sessionmaker(engine, class_=WriteSession, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Open a session for reading; it is rolled back at the end."""
        async with self._readers() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """Open a session for writing; it commits at the end, and rolls back on any error."""
        async with self._writers() as session, session.begin():
            yield session

    async def close(self) -> None:
        """Close the pool."""
        await self.engine.dispose()
