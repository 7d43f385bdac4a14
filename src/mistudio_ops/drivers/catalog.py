"""What a database says about itself, all of it in the snapshot of the connection that asks."""

from typing import TYPE_CHECKING, Any, LiteralString

from mistudio_ops.domain.backup import DatabaseFacts, TableRows

if TYPE_CHECKING:
    import psycopg

_FACTS = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000,
       pg_database_size(oid), pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype
FROM pg_database WHERE datname = current_database()
"""
#: Owners and those with rights. Objects of the role that initdb made leave no trace in pg_shdepend.
_ROLES = """
SELECT r.rolname FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_authid'::regclass
  AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION
SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
UNION
SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
ORDER BY 1
"""
_EXTENSIONS = "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
#: What pg_dump writes rows of: ordinary tables and the leaves of partitioned ones; not what an extension brought.
_TABLES = """
SELECT n.nspname, c.relname, CASE WHEN c.relispartition THEN p.relname END
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class p ON c.relispartition AND p.oid = pg_partition_root(c.oid)
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (
    SELECT FROM pg_depend e
    WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.refclassid = 'pg_extension'::regclass
      AND e.deptype = 'e'
  )
ORDER BY 1, 2
"""
_ROW_COUNT: LiteralString = "SELECT count(*) FROM {}"
_HAS_REVISION = "SELECT to_regclass('alembic_version') IS NOT NULL"
_REVISION = "SELECT string_agg(version_num, ',' ORDER BY version_num) FROM alembic_version"


def database_facts(connection: "psycopg.Connection[Any]", name: str) -> DatabaseFacts:
    """Return the facts of the database that ``connection`` is in; ``name`` is what it is called."""
    row = connection.execute(_FACTS).fetchone()
    assert row is not None  # noqa: S101 - we are connected to it
    version, major, size, owner, encoding, collate, ctype = row
    return DatabaseFacts(
        name=name, server_version=str(version).split()[0], server_major=int(major), size_bytes=int(size), owner=owner,
        encoding=encoding, collate=collate, ctype=ctype, revision=revision(connection),
        roles=_names(connection, _ROLES), extensions=_names(connection, _EXTENSIONS),
    )  # fmt: skip


def server_major(connection: "psycopg.Connection[Any]") -> int:
    """Return the major version of the server."""
    return connection.info.server_version // 10000


def tables(connection: "psycopg.Connection[Any]") -> list[tuple[str, str, str | None]]:
    """Return schema, name and partitioned parent of every table whose rows a dump holds, by name."""
    return [(schema, name, parent) for schema, name, parent in connection.execute(_TABLES)]


def row_counts(connection: "psycopg.Connection[Any]") -> tuple[TableRows, ...]:
    """Count the rows of every table, one query each, in the connection's own snapshot.

    The counts fit each other when the caller is in a transaction of isolation level REPEATABLE READ.

    Raises:
        psycopg.Error: a table may not be read, or the connection broke.
    """
    from psycopg import sql

    counted = []
    for schema, name, parent in tables(connection):
        row = connection.execute(sql.SQL(_ROW_COUNT).format(sql.Identifier(schema, name))).fetchone()
        counted.append(TableRows(schema, name, int(row[0]) if row else 0, parent))
    return tuple(counted)


def revision(connection: "psycopg.Connection[Any]") -> str | None:
    """Return the revision that Alembic recorded (several, joined by commas, if it has several heads); None if none."""
    known = connection.execute(_HAS_REVISION).fetchone()
    if known is None or not known[0]:
        return None
    row = connection.execute(_REVISION).fetchone()
    return row[0] if row else None


def _names(connection: "psycopg.Connection[Any]", query: LiteralString) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in connection.execute(query) if not str(row[0]).startswith("pg_"))
