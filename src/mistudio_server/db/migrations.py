"""Running the Alembic scripts that the package ships. The configuration is made in code: there is no alembic.ini."""

from collections.abc import Callable
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import URL, Connection

from mistudio_server.db.maintenance_lock import MAINTENANCE_LOCK, OnWait, take
from mistudio_server.paths import migrations_dir

__all__ = ["MAINTENANCE_LOCK", "Revisions", "config", "downgrade", "head", "revisions", "upgrade"]

LOCK_TIMEOUT = "5s"
APPLICATION = "mistudio migrate"


@dataclass(frozen=True, slots=True)
class Revisions:
    """Where a database is (None: empty) and where the code wants it."""

    current: str | None
    head: str

    @property
    def at_head(self) -> bool:
        """True when nothing is to be migrated."""
        return self.current == self.head


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for the shipped scripts, bound to ``connection`` when there is one."""
    cfg = Config()
    cfg.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    cfg.attributes["connection"] = connection
    return cfg


def head() -> str:
    """Return the one newest revision that the code knows. More than one head is an error of Alembic's."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise RuntimeError(f"no migration scripts in {migrations_dir()}")
    return revision


def revisions(url: URL) -> Revisions:
    """Return the database's revision and the code's."""
    engine = create_engine(url, poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return Revisions(current=current, head=head())


def upgrade(url: URL, revision: str = "head", *, wait: float | None = None, on_wait: OnWait | None = None) -> Revisions:
    """Migrate up to ``revision``; a no-op when the database is there already.

    ``wait`` and ``on_wait`` are about other maintenance: see ``maintenance_lock.take``.

    Raises:
        LockedError: other maintenance goes on for longer than ``wait`` seconds.
    """
    return _run(url, revision, command.upgrade, wait, on_wait)


def downgrade(url: URL, revision: str, *, wait: float | None = None, on_wait: OnWait | None = None) -> Revisions:
    """Migrate down to ``revision`` (``base`` is an empty schema). Data of what is dropped is lost.

    Raises:
        LockedError: as ``upgrade``.
    """
    return _run(url, revision, command.downgrade, wait, on_wait)


def _run(
    url: URL, revision: str, verb: Callable[[Config, str], None], wait: float | None, on_wait: OnWait | None
) -> Revisions:
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"application_name": APPLICATION})
    try:
        with engine.connect() as connection:
            take(connection, wait=wait, on_wait=on_wait)
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            connection.commit()
            verb(config(connection), revision)
            connection.commit()
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()  # closes the connection, which releases the advisory lock
    return Revisions(current=current, head=head())
