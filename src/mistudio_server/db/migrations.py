"""Running the Alembic scripts that the package ships. The configuration is made in code: there is no alembic.ini."""

from collections.abc import Callable
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import URL, Connection

from mistudio_server.paths import migrations_dir

#: Advisory lock shared by migrations, the archiver and backups: one of them at a time.
MAINTENANCE_LOCK = 0x6D69_5374_7564_696F  # "miStudio"
LOCK_TIMEOUT = "5s"


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


def upgrade(url: URL, revision: str = "head") -> Revisions:
    """Migrate up to ``revision``; a no-op when the database is there already."""
    return _run(url, revision, command.upgrade)


def downgrade(url: URL, revision: str) -> Revisions:
    """Migrate down to ``revision`` (``base`` is an empty schema). Data of what is dropped is lost."""
    return _run(url, revision, command.downgrade)


def _run(url: URL, revision: str, verb: Callable[[Config, str], None]) -> Revisions:
    engine = create_engine(url, poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MAINTENANCE_LOCK})
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            connection.commit()
            verb(config(connection), revision)
            connection.commit()
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()  # closes the connection, which releases the advisory lock
    return Revisions(current=current, head=head())
