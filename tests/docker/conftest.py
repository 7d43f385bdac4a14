"""A real Engine, and PostgreSQL in containers, for the tests of this folder."""

from collections.abc import Iterator

import psycopg
import pytest

import docker
from tests.support.docker_engine import Image, PostgresContainer, connect, image_of, programs


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the Engine."""
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Image:
    """An image with the newest PostgreSQL of this machine."""
    return image_of(engine, programs()[-1])


@pytest.fixture(scope="session")
def debian_image(engine: docker.DockerClient) -> Image:
    """An image with the oldest PostgreSQL of this machine: where the system has one, laid out as Debian's are."""
    return image_of(engine, programs()[0])


@pytest.fixture(scope="session")
def shared_postgres(engine: docker.DockerClient, image: Image) -> Iterator[PostgresContainer]:
    """A container for tests that leave it running."""
    container = PostgresContainer(engine, image)
    try:
        yield container.start()
    finally:
        container.remove()


@pytest.fixture
def own_postgres(engine: docker.DockerClient, image: Image) -> Iterator[PostgresContainer]:
    """A container of this test's own, which it may stop."""
    container = PostgresContainer(engine, image)
    try:
        yield container.start()
    finally:
        container.remove()


@pytest.fixture
def rows(shared_postgres: PostgresContainer) -> Iterator[str]:
    """A database in the shared container with a table ``numbers`` of 1,000 rows; its name."""
    yield from database_with_rows(shared_postgres, 1000)


def database_with_rows(container: PostgresContainer, count: int, name: str = "lab") -> Iterator[str]:
    """Make a database with that many rows, and drop it."""
    with psycopg.connect(container.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(container.url(name), autocommit=True) as session:
        session.execute("CREATE TABLE numbers (n int PRIMARY KEY, text text)")
        session.execute("INSERT INTO numbers SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, %s) n", (count,))
    yield name
    with psycopg.connect(container.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
