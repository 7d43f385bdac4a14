"""Ways into the test server: as a superuser, and as an owner who merely has CREATEDB."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.database_access import DatabaseAccess, database_access
from mistudio_ops.drivers.databases import list_ours
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.real_backups import environment_of, fill, workplace_of


@pytest.fixture
def access(database_url: str) -> DatabaseAccess:
    """The migrated database of this test; its owner is a superuser."""
    return database_access(environment_of(database_url), None)


@pytest.fixture
def plain_owner(postgres_admin: str) -> Iterator[DatabaseAccess]:
    """An empty database ``live_...`` whose owner has CREATEDB and is no superuser. Everything of it goes at the end."""
    role = f"owner_{secrets.token_hex(4)}"
    name = f"live_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(role), sql.Literal(role))
        )
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(role)))
    url = make_url(postgres_admin.replace("postgresql://", "postgresql+psycopg://"))
    url = url.set(username=role, password=role, database=name)
    environment = Environment(name="local", state_dir=None, database_url=url.render_as_string(hide_password=False))  # type: ignore[arg-type]
    yield database_access(environment, None)
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        rows = admin.execute("SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s", (role,)).fetchall()
        for (database,) in [*rows, (name,)]:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def workplace(database_url: str, access: DatabaseAccess, tmp_path: Path) -> Iterator[Workplace]:
    """Backups of this test's database, which holds a small studio. No scratch database may stay behind."""
    fill(access)
    yield workplace_of(database_url, tmp_path)
    assert list_ours(access, "verify") == []


@pytest.fixture
def admin(postgres_admin: str) -> "Iterator[psycopg.Connection[tuple[object, ...]]]":
    """A superuser's session in the maintenance database."""
    with psycopg.connect(postgres_admin, autocommit=True) as connection:
        yield connection
