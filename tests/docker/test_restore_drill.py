"""The restore drill where PostgreSQL runs in a container: units are processes, the database is Docker's."""

from collections.abc import Iterator

import psycopg
import pytest

import docker
from tests.support.docker_engine import Image, PostgresContainer
from tests.support.restore_drill import drill
from tests.support.studio import deployed_studio

pytestmark = [pytest.mark.docker, pytest.mark.train, pytest.mark.xdist_group("docker")]

#: What an operator gives a studio on a shared server: a role that owns its database and may create others.
_ROLE = "CREATE ROLE lab LOGIN CREATEDB PASSWORD 'of-the-drill'"


@pytest.fixture
def roomy_postgres(engine: docker.DockerClient, image: Image) -> Iterator[PostgresContainer]:
    """A server that has as many connections as the pools of three backends may open: health asks for that."""
    container = PostgresContainer(engine, image)
    try:
        yield container.start("-c", "max_connections=300")
    finally:
        container.remove()


def test_every_row_is_back_and_the_training_resumes(roomy_postgres: PostgresContainer) -> None:
    with psycopg.connect(roomy_postgres.url("postgres"), autocommit=True) as admin:
        admin.execute(_ROLE)
        admin.execute("CREATE DATABASE lab OWNER lab")
    url = f"postgresql://lab:of-the-drill@127.0.0.1:{roomy_postgres.port}/lab"
    with deployed_studio(MISTUDIO_DATABASE_URL=url, MISTUDIO_DATABASE_CONTAINER=roomy_postgres.name) as studio:
        drill(studio, url, name="lab")
