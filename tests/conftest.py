"""Fixtures that every suite shares. The controller starts one PostgreSQL and one store; each test has a database."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import redis.asyncio
from psycopg import sql
from sqlalchemy import make_url

from mistudio_server.db import migrations
from mistudio_server.db.engine import Database, create_engine
from mistudio_server.settings import Settings
from tests.support.servers import TestServers, shared_environment, strip_environment

_SERVERS = pytest.StashKey[TestServers]()


def pytest_configure(config: pytest.Config) -> None:
    strip_environment()
    if hasattr(config, "workerinput") or "MISTUDIO_TEST_POSTGRES" in os.environ or config.option.collectonly:
        return
    if config.option.markexpr == "unit":
        return
    servers = TestServers()
    config.stash[_SERVERS] = servers
    servers.start()
    os.environ.update(shared_environment(servers))


def pytest_unconfigure(config: pytest.Config) -> None:
    servers = config.stash.get(_SERVERS, None)
    if servers is not None:
        servers.stop()


@pytest.fixture(scope="session")
def postgres_admin() -> str:
    """libpq URL of the maintenance database, as superuser."""
    return os.environ["MISTUDIO_TEST_POSTGRES"].replace("+psycopg", "")


@pytest.fixture(scope="session")
def template_database(postgres_admin: str) -> Iterator[str]:
    """A migrated database of this worker, from which each test's own is copied in a few milliseconds."""
    name = f"template_{os.getpid()}_{secrets.token_hex(3)}"
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrations.upgrade(make_url(os.environ["MISTUDIO_TEST_POSTGRES"]).set(database=name))
    yield name
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database_url(postgres_admin: str) -> Iterator[str]:
    """URL (driver named) of a database without a table."""
    yield from _database(postgres_admin, None)


@pytest.fixture
def database_url(postgres_admin: str, template_database: str) -> Iterator[str]:
    """URL (driver named) of a migrated database that is this test's own."""
    yield from _database(postgres_admin, template_database)


def _database(postgres_admin: str, template: str | None) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template:
        statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(statement)
    url = make_url(os.environ["MISTUDIO_TEST_POSTGRES"]).set(database=name)
    yield url.render_as_string(hide_password=False)
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def redis_url() -> str:
    """URL of the store. Keys and channels of a test carry its own prefix: see ``settings``."""
    return os.environ["MISTUDIO_TEST_REDIS"]


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of one test: its own database, key prefix and DATA_DIR."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        redis_ws_url=redis_url,
        redis_prefix=f"test-{secrets.token_hex(6)}",
        data_dir=data_dir,
        internal_token=secrets.token_urlsafe(16),
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Read and write sessions on this test's database."""
    database = Database(create_engine(settings, application_name="test", pool_size=5))
    yield database
    await database.close()


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the store."""
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()
