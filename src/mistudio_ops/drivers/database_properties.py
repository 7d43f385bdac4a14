"""What belongs to a database and is in no dump of it: its settings, its rights, its limit of connections.

A restored database takes the name of the live one, not these: they are carried over before names change.
"""

from typing import TYPE_CHECKING, Any

from mistudio_ops.drivers.database_access import DatabaseAccess

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

#: Settings of the database (role null) and of roles in it. A value that is a list is written down as one, quoted.
_SETTINGS = """
SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END, split_part(one, '=', 1),
       substr(one, strpos(one, '=') + 1)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS one
WHERE d.datname = %s ORDER BY 1, 2
"""
#: Rights that somebody gave or took; null is the default.
_RIGHTS = """
SELECT a.grantee = 0, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = %s AND a.grantee <> d.datdba ORDER BY 1, 2, 3
"""
_LIMIT = "SELECT datconnlimit, datacl IS NOT NULL FROM pg_database WHERE datname = %s"
_NO_LIMIT = -1
#: Their values are lists of names: quoted as a whole, each list would become one name.
_LISTS = {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}


def carry_properties(access: DatabaseAccess, source: str, target: str) -> list[str]:
    """Give ``target`` the settings, rights and connection limit of ``source``; return what could not be carried over.

    Nothing happens where there is no ``source``. What a superuser set stays behind when we are none.
    """
    with access.admin_session() as connection:
        limit = connection.execute(_LIMIT, (source,)).fetchone()
        if limit is None:
            return []
        statements = [
            *_limit_statements(limit[0], target),
            *_setting_statements(connection.execute(_SETTINGS, (source,)).fetchall(), target),
            *(_right_statements(connection.execute(_RIGHTS, (source,)).fetchall(), target) if limit[1] else ()),
        ]
        return [problem for statement in statements if (problem := _run(connection, statement))]


def _limit_statements(limit: int, target: str) -> "list[sql.Composed]":
    from psycopg import sql

    if limit == _NO_LIMIT:
        return []
    return [sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(sql.Identifier(target), sql.Literal(limit))]


def _setting_statements(rows: list[Any], target: str) -> "list[sql.Composed]":
    from psycopg import sql

    statements = []
    for role, name, value in rows:
        whose = sql.SQL("DATABASE {}").format(sql.Identifier(target))
        if role is not None:
            whose = sql.SQL("ROLE {} IN ").format(sql.Identifier(role)) + whose
        # As it is stored, a list is SQL already.
        text = sql.SQL(value or "''") if name in _LISTS else sql.Literal(value)
        parameter = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
        statements.append(sql.SQL("ALTER {} SET {} TO {}").format(whose, parameter, text))
    return statements


def _right_statements(rows: list[Any], target: str) -> "list[sql.Composed]":
    from psycopg import sql

    database = sql.Identifier(target)
    statements = [sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database)]
    for public, role, privilege, grantable in rows:
        whom = sql.SQL("PUBLIC") if public else sql.Identifier(role)
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        grant = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
        statements.append(grant.format(sql.SQL(privilege), database, whom, option))
    return statements


def _run(connection: "psycopg.Connection[Any]", statement: "sql.Composed") -> str | None:
    import psycopg

    try:
        connection.execute(statement)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return f"{statement.as_string(connection)}: {str(error).strip().splitlines()[0]}"
    return None
