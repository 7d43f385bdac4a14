"""Whole databases of one server: made, found, swapped and dropped, beside the live one and never in place of it.

Everything here works with a role that owns the live database and has CREATEDB, as well as with a superuser.
Databases that commands make carry names by which leftovers of a killed one are known:

    LIVE_verify_1a2b3c4d    a scratch copy, while a backup is being proven
    LIVE_restore_1a2b3c4d   being restored, until it takes the live one's name
    LIVE_before_1a2b3c4d    what was live before a restore; connections to it are blocked
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mistudio_ops.domain.backup import DatabaseFacts
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.database_swap import swap
from mistudio_ops.errors import LockedError, PreconditionError

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "OurDatabase", "Purpose", "create_database", "database_name", "databases", "drop_database", "drop_leftovers",
    "exists", "list_ours", "require_createdb", "scratch_claim", "swap", "unblock",
]  # fmt: skip

Purpose = Literal["verify", "restore", "before"]
#: What PostgreSQL cuts names to, in bytes; it would do so silently.
MAX_NAME_BYTES = 63

_EXISTS = "SELECT 1 FROM pg_database WHERE datname = %s"
_NAMES = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname"
_OURS = """
SELECT datname, datallowconn, shobj_description(oid, 'pg_database') FROM pg_database
WHERE starts_with(datname, %s) ORDER BY datname
"""
_RIGHTS = "SELECT current_user, rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
_UNTRUSTED = """
SELECT wanted.name, bool_or(version.name IS NOT NULL), bool_or(NOT version.superuser OR version.trusted)
FROM unnest(%s::text[]) AS wanted (name) LEFT JOIN pg_available_extension_versions AS version USING (name)
GROUP BY wanted.name
"""
#: The session that holds a claim is idle all the time. Servers before 14 have no such limit.
_NO_IDLE_LIMIT = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = %s"
_TEMPLATE_LOCALE = "SELECT datcollate, datctype FROM pg_database WHERE datname = 'template0'"


@dataclass(frozen=True, slots=True)
class OurDatabase:
    """A database that a command of ours made or kept. ``open`` is False while connections to it are blocked."""

    name: str
    purpose: Purpose
    open: bool


def database_name(live: str, purpose: Purpose, token: str) -> str:
    """Return the name for a copy of ``live``; ``token`` is 8 hexadecimal digits. A long ``live`` is cut."""
    return f"{_stem(live, purpose)}{token}"


def databases(access: DatabaseAccess) -> list[str]:
    """Return the names of the server's databases, templates apart."""
    with access.admin_session() as connection:
        return [str(name) for (name,) in connection.execute(_NAMES)]


def exists(access: DatabaseAccess, name: str) -> bool:
    """Return True when the server has a database of that name."""
    with access.admin_session() as connection:
        return _exists(connection, name)


def list_ours(access: DatabaseAccess, *purposes: Purpose) -> list[OurDatabase]:
    """Return the databases that commands made for the live one of ``access``; all purposes when none is named."""
    found = []
    with access.admin_session() as connection:
        for purpose in purposes or get_args(Purpose):
            stem = _stem(access.name, purpose)
            for name, is_open, comment in connection.execute(_OURS, (stem,)).fetchall():
                if re.fullmatch(r"[0-9a-f]{8}", name[len(stem) :]) and comment in {None, _comment(access)}:
                    found.append(OurDatabase(name, purpose, is_open))
    return sorted(found, key=lambda one: one.name)


def require_createdb(access: DatabaseAccess) -> None:
    """Make sure that we may create and rename databases.

    Raises:
        PreconditionError: we may not; the hint is what a superuser has to type.
    """
    with access.admin_session() as connection:
        row = connection.execute(_RIGHTS).fetchone()
    if row is None or not row[1]:
        raise _no_createdb(access.admin)


def create_database(access: DatabaseAccess, name: str, facts: DatabaseFacts) -> str | None:
    """Make an empty database, as the one that was dumped was made, owned by the owner role.

    Extensions that the dump needs and only a superuser may create are created by the admin login. Returns None, or
    what differs from the dumped one: where the server lacks its locale, texts are sorted in another order.

    Raises:
        PreconditionError: rights, an extension or every usable locale is missing; nothing is left behind.
    """
    from psycopg import sql

    with access.admin_session() as connection:
        reserved = _reserved_extensions(access, connection, facts)
        differs = _create(access, connection, name, facts)
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(_comment(access)))
        )
    try:
        _create_extensions(access, name, reserved)
    except BaseException:
        drop_database(access, name)
        raise
    return differs


def drop_database(access: DatabaseAccess, name: str) -> None:
    """Drop a database and end the sessions in it. Nothing happens where there is none.

    Raises:
        ValueError: it is the live one.
        PreconditionError: sessions in it cannot be ended, or we may not drop it.
    """
    import psycopg
    from psycopg import sql

    if name == access.name:
        raise ValueError(f"{name} is the live database")
    with access.admin_session() as connection:
        try:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse) as error:
            raise PreconditionError(
                f"database {name} cannot be dropped: {_first_line(error)}",
                hint=f'as a superuser: DROP DATABASE "{name}" WITH (FORCE);',
            ) from error


def unblock(access: DatabaseAccess, name: str) -> None:
    """Let sessions into a database again."""
    from psycopg import sql

    with access.admin_session() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


@contextmanager
def scratch_claim(access: DatabaseAccess, name: str) -> Iterator[None]:
    """Hold the right to a scratch database while it is used: ``drop_leftovers`` of others leaves it alone.

    The server releases it when our process or connection dies, wherever we run.

    Raises:
        LockedError: another process has it.
    """
    with access.admin_session(application="mistudio-ops backup verify") as connection:
        connection.execute(_NO_IDLE_LIMIT)
        if not _claimed(connection, name):
            raise LockedError(f"another process works on database {name}", hint="wait for it to end")
        yield


def drop_leftovers(access: DatabaseAccess) -> list[str]:
    """Drop scratch databases whose verification was killed; return their names. Those in use stay."""
    dropped = []
    for one in list_ours(access, "verify"):
        with access.admin_session() as connection:
            if _claimed(connection, one.name):
                drop_database(access, one.name)
                dropped.append(one.name)
    return dropped


def _stem(live: str, purpose: Purpose) -> str:
    room = MAX_NAME_BYTES - len(f"_{purpose}_") - 8
    return f"{live.encode()[:room].decode(errors='ignore')}_{purpose}_"


def _comment(access: DatabaseAccess) -> str:
    return f"made by mistudio-ops for {access.name}"


def _exists(connection: "psycopg.Connection[Any]", name: str) -> bool:
    return connection.execute(_EXISTS, (name,)).fetchone() is not None


def _claimed(connection: "psycopg.Connection[Any]", name: str) -> bool:
    key = int.from_bytes(hashlib.sha256(f"mistudio scratch {name}".encode()).digest()[:8], signed=True)
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
    return bool(row and row[0])


def _create(
    access: DatabaseAccess, connection: "psycopg.Connection[Any]", name: str, facts: DatabaseFacts
) -> str | None:
    import psycopg

    template = connection.execute(_TEMPLATE_LOCALE).fetchone() or ("C", "C")
    wanted, refusal = (facts.collate, facts.ctype), ""
    for collate, ctype in dict.fromkeys((wanted, tuple(template), ("C", "C"))):
        try:
            connection.execute(_statement(access, name, facts.encoding, collate, ctype))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_allowed(access, error) from error
        except psycopg.errors.DuplicateDatabase as error:
            raise PreconditionError(f"database {name} exists already") from error
        except (
            psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject,
        ) as error:  # fmt: skip
            refusal = refusal or _first_line(error)
        else:
            return None if (collate, ctype) == wanted else _other_locale(facts, collate, refusal)
    raise PreconditionError(
        f"the server cannot make a database of encoding {facts.encoding}, locale {facts.collate}: {refusal}",
        hint=f"install the locale on the database's machine: locale-gen {facts.collate}, then restart PostgreSQL",
    )


def _statement(access: DatabaseAccess, name: str, encoding: str, collate: str, ctype: str) -> Any:
    from psycopg import sql

    return sql.SQL(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    ).format(
        sql.Identifier(name), sql.Identifier(access.owner.user),
        sql.Literal(encoding), sql.Literal(collate), sql.Literal(ctype),
    )  # fmt: skip


def _other_locale(facts: DatabaseFacts, collate: str, refusal: str) -> str:
    return f"the server lacks the locale {facts.collate} ({refusal}): with {collate}, texts are sorted in another order"


def _reserved_extensions(
    access: DatabaseAccess, connection: "psycopg.Connection[Any]", facts: DatabaseFacts
) -> list[str]:
    """Return the extensions that the owner role may not create."""
    names = [name for name in facts.extensions if name != "plpgsql"]
    rows = connection.execute(_UNTRUSTED, (names,)).fetchall()
    missing = sorted(name for name, available, _ in rows if not available)
    if missing:
        raise PreconditionError(
            f"the server lacks {'extensions' if len(missing) > 1 else 'the extension'} {', '.join(missing)}, "
            f"which the backup of {facts.name} needs",
            hint=f"install it on the database's machine, as in: apt-get install postgresql-{facts.server_major}-NAME "
            f"(or postgresql-contrib-{facts.server_major})",
        )
    row = connection.execute(_SUPERUSER, (access.owner.user,)).fetchone()
    return [] if row and row[0] else sorted(name for name, _, trusted in rows if not trusted)


def _create_extensions(access: DatabaseAccess, name: str, extensions: list[str]) -> None:
    import psycopg
    from psycopg import sql

    if not extensions:
        return
    with access.admin_session(name) as connection:
        for extension in extensions:
            try:
                connection.execute(sql.SQL("CREATE EXTENSION {} CASCADE").format(sql.Identifier(extension)))
            except psycopg.errors.DuplicateObject:
                continue  # another one brought it along
            except psycopg.Error as error:
                raise PreconditionError(
                    f"{access.admin.user} cannot create the extension {extension}, which the backup needs: "
                    f"{_first_line(error)}",
                    hint="set database_admin_url to a superuser's URL for this run",
                ) from error


def _not_allowed(access: DatabaseAccess, error: Exception) -> PreconditionError:
    if "create database" in str(error):
        return _no_createdb(access.admin)
    return PreconditionError(
        f"{access.admin.user} may not make databases that {access.owner.user} owns: {_first_line(error)}",
        hint=f'as a superuser: GRANT "{access.owner.user}" TO "{access.admin.user}";',
    )


def _no_createdb(login: Login) -> PreconditionError:
    return PreconditionError(
        f"the role {login.user} may not create databases at {login.host}:{login.port}",
        hint=f'as a superuser: ALTER ROLE "{login.user}" CREATEDB;  (or set database_admin_url to a role that may)',
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
