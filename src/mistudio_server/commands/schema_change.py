"""``mistudio-server migrate``: the database's revision, and going to another."""

import asyncio

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from mistudio_server.db import migrations
from mistudio_server.db.engine import Database, create_engine, database_url
from mistudio_server.db.maintenance_lock import OnWait
from mistudio_server.db.migrations import Revisions
from mistudio_server.errors import DependencyUnavailableError, InvalidInputError
from mistudio_server.metrics.partitions import premake
from mistudio_server.settings import Settings


def change(
    settings: Settings,
    to: str | None,
    *,
    partitions: bool = False,
    lock_wait: float | None = None,
    on_wait: OnWait | None = None,
) -> Revisions:
    """Go to revision ``to`` (None: only look); with ``partitions`` make those of the coming months, which an old
    database that was restored lacks.

    Other maintenance is waited for, up to ``lock_wait`` seconds (None: those of the settings), ``on_wait`` is told.

    Raises:
        InvalidInputError: there is no such revision.
        LockedError: other maintenance goes on for longer.
        DependencyUnavailableError: the database does not answer, or a table stays locked.
    """
    found = _change(settings, to, settings.lock_wait_seconds if lock_wait is None else lock_wait, on_wait)
    if partitions and found.at_head:
        asyncio.run(_premake(settings))
    return found


async def _premake(settings: Settings) -> None:
    database = Database(create_engine(settings, application_name="mistudio migrate", pool_size=1))
    try:
        async with database.write() as session:
            await premake(session)
    finally:
        await database.close()


def _change(settings: Settings, to: str | None, wait: float, on_wait: OnWait | None) -> Revisions:
    url = database_url(settings)
    try:
        before = migrations.revisions(url)
        if to is None or (to == "head" and before.at_head):
            return before
        script = ScriptDirectory.from_config(migrations.config())
        known = [revision.revision for revision in script.walk_revisions()]
        go = migrations.downgrade if _is_down(known, before.current, to) else migrations.upgrade
        return go(url, to, wait=wait, on_wait=on_wait)
    except CommandError as error:
        raise InvalidInputError(f"{error}.", hint="`ls` the migrations, or use --to head.") from error
    except OperationalError as error:
        raise _unavailable(error, url.render_as_string(hide_password=True)) from error


def _is_down(known: list[str], current: str | None, to: str) -> bool:
    """Return True when ``to`` is older than ``current``; ``known`` is newest first."""
    if to == "base":
        return True
    return current in known and to in known and known.index(to) > known.index(current)


def _unavailable(error: OperationalError, url: str) -> DependencyUnavailableError:
    reason = str(error.orig).strip().splitlines()[0]
    if isinstance(error.orig, LockNotAvailable):
        return DependencyUnavailableError(f"A table stays locked: {reason}.", hint="Try again when it is free.")
    return DependencyUnavailableError(
        f"DATABASE_URL ({url}) does not answer: {reason}.", hint="See that PostgreSQL runs there and the URL is right."
    )
