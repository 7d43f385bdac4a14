"""Giving one database the name of another, in one transaction: there is no moment without a whole live database."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.database_properties import carry_properties
from mistudio_ops.errors import NothingFoundError, PreconditionError

if TYPE_CHECKING:
    import psycopg

ATTEMPTS = 5
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
_EXISTS = "SELECT 1 FROM pg_database WHERE datname = %s"
_SESSIONS = "SELECT pid, usename, application_name FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> %s"
_END = "SELECT pg_terminate_backend(%s)"
_SWEEP_SECONDS = 0.02


def swap(
    access: DatabaseAccess,
    *,
    current: str,
    incoming: str,
    aside: str,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Rename ``current`` to ``aside`` and ``incoming`` to ``current``; sessions in both are ended.

    ``incoming`` first gets the settings and rights of ``current``; what it could not get is returned.
    ``aside`` stays, with connections to it blocked. Where ``current`` does not exist (any more), only ``incoming``
    is renamed. Either both have happened or nothing, whenever we or the server die.

    Raises:
        NothingFoundError: there is no ``incoming``.
        PreconditionError: ``aside`` exists, rights are missing, or a session cannot be ended. Nothing was changed.
    """
    import psycopg

    left = carry_properties(access, current, incoming) if _exists_in(access, incoming) else []
    for attempt in range(ATTEMPTS):
        try:
            with access.admin_session() as connection, _ending_sessions(access, current, incoming):
                _swap(connection, current, incoming, aside)
        except (psycopg.errors.ObjectInUse, psycopg.errors.LockNotAvailable) as error:
            if attempt == ATTEMPTS - 1:
                raise _in_use(access, current, incoming, error) from error
            sleep(0.2 * (attempt + 1))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_allowed(access, current, error) from error
        else:
            break
    return left


def _exists_in(access: DatabaseAccess, name: str) -> bool:
    with access.admin_session() as connection:
        return _exists(connection, name)


def _swap(connection: "psycopg.Connection[Any]", current: str, incoming: str, aside: str) -> None:
    from psycopg import sql

    def run(text: str, *names: str) -> None:
        connection.execute(sql.SQL(text).format(*map(sql.Identifier, names)))

    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        _check_names(connection, incoming, aside)
        if _exists(connection, current):
            run("ALTER DATABASE {} ALLOW_CONNECTIONS false", current)
            run("ALTER DATABASE {} RENAME TO {}", current, aside)
        run("ALTER DATABASE {} RENAME TO {}", incoming, current)
        run("ALTER DATABASE {} ALLOW_CONNECTIONS true", current)


def _check_names(connection: "psycopg.Connection[Any]", incoming: str, aside: str) -> None:
    if not _exists(connection, incoming):
        raise NothingFoundError(f"there is no database {incoming}")
    if _exists(connection, aside):
        raise PreconditionError(f"database {aside} exists already")


def _exists(connection: "psycopg.Connection[Any]", name: str) -> bool:
    return connection.execute(_EXISTS, (name,)).fetchone() is not None


@contextmanager
def _ending_sessions(access: DatabaseAccess, *names: str) -> Iterator[None]:
    """End all sessions in these databases, again and again until the block ends.

    Pools reconnect within milliseconds. RENAME first locks the database against new sessions and then waits up to five
    seconds for those inside to leave: ending them from beside meanwhile lets it through.
    """
    with access.admin_session() as connection:
        done = threading.Event()
        _end_sessions(connection, names)
        sweeper = threading.Thread(target=_sweep, args=(connection, names, done), daemon=True)
        sweeper.start()
        try:
            yield
        finally:
            done.set()
            sweeper.join()


def _sweep(connection: "psycopg.Connection[Any]", names: tuple[str, ...], done: threading.Event) -> None:
    import psycopg

    with suppress(psycopg.Error):  # the transaction beside us reports what is wrong with the server
        while not done.wait(_SWEEP_SECONDS):
            _end_sessions(connection, names)


def _end_sessions(connection: "psycopg.Connection[Any]", names: tuple[str, ...]) -> None:
    import psycopg

    for pid, _, _ in connection.execute(_SESSIONS, (list(names), connection.info.backend_pid)).fetchall():
        with suppress(psycopg.errors.InsufficientPrivilege):  # RENAME then fails, and its error names the session
            connection.execute(_END, (pid,))


def _in_use(access: DatabaseAccess, current: str, incoming: str, error: Exception) -> PreconditionError:
    with access.admin_session() as connection:
        rows = connection.execute(_SESSIONS, ([current, incoming], connection.info.backend_pid)).fetchall()
    sessions = [f"process {pid} of {user or 'the server'} ({name or 'no name'})" for pid, user, name in rows]
    return PreconditionError(
        f"{current} could not be renamed, it is in use: {', '.join(sessions) or str(error).strip()}",
        hint="stop what uses it, or set database_admin_url to a superuser's URL for this run",
    )


def _not_allowed(access: DatabaseAccess, current: str, error: Exception) -> PreconditionError:
    user = access.admin.user
    owns = "must be owner" in str(error)
    statement = f'ALTER DATABASE "{current}" OWNER TO "{user}";' if owns else f'ALTER ROLE "{user}" CREATEDB;'
    return PreconditionError(
        f"{user} may not rename {current}: {str(error).strip().splitlines()[0]}",
        hint=f"as a superuser: {statement}  (or set database_admin_url to a role that may)",
    )
