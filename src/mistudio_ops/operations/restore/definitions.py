"""Tables that are gone from the live database: their definitions, as pg_dump writes them from the scratch copy."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.pg_tools import PgTools, Streams
from mistudio_ops.drivers.table_form import TableForm
from mistudio_ops.errors import OpsError

if TYPE_CHECKING:
    import psycopg

#: Of tables that are still there, to those that were gone: dropping a table drops them.
_FOREIGN_KEYS = """
SELECT n.nspname, c.relname, f.conname, pg_get_constraintdef(f.oid)
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = ANY(%(oids)s) AND f.conrelid <> ALL(%(oids)s)
"""
_HAS_TABLE = "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text)) IS NOT NULL"
_HAS_CONSTRAINT = """
SELECT 1 FROM pg_constraint WHERE conname = %s AND conrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
"""
#: How long a table that somebody holds is waited for.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"


@dataclass(frozen=True, slots=True)
class Definitions:
    """SQL that makes the tables (``before`` their rows come), and their indexes and constraints (``after``)."""

    before: str
    after: str
    foreign_keys: tuple[tuple[str, str, str, str], ...]


def definitions(
    tools: PgTools,
    access: DatabaseAccess,
    scratch: "psycopg.Connection[Any]",
    missing: Sequence[TableForm],
) -> Definitions:
    """Read the definitions of tables from the scratch copy that ``scratch`` is connected to.

    Raises:
        OpsError: pg_dump failed.
    """
    patterns = [f"--table={_pattern(schema, name)}" for form in missing for schema, name in _relations(form)]
    rows = scratch.execute(_FOREIGN_KEYS, {"oids": [form.oid for form in missing]}).fetchall()
    name = scratch.info.dbname
    return Definitions(
        _dumped(tools, access, name, ["--section=pre-data", *patterns]),
        _dumped(tools, access, name, ["--section=post-data", *patterns]),
        tuple((str(schema), str(table), str(key), str(text)) for schema, table, key, text in rows),
    )


def make_tables(live: "psycopg.Connection[Any]", made: Definitions) -> None:
    """Make the tables, without indexes, in the transaction of ``live``."""
    _run(live, made.before)


def finish_tables(live: "psycopg.Connection[Any]", made: Definitions) -> None:
    """Add indexes and constraints, and the foreign keys of other tables that went with the tables."""
    from psycopg import sql

    _run(live, made.after)
    for schema, table, key, text in made.foreign_keys:
        there = live.execute(_HAS_TABLE, (schema, table)).fetchone() == (True,)
        if there and live.execute(_HAS_CONSTRAINT, (key, schema, table)).fetchone() is None:
            statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(
                sql.Identifier(schema, table), sql.Identifier(key)
            )
            live.execute(statement.as_string(live).encode() + text.encode())


def _relations(form: TableForm) -> list[tuple[str, str]]:
    return [(form.schema, form.name), *((one.schema, one.name) for one in form.partitions)]


def _pattern(schema: str, name: str) -> str:
    """Return the pattern that fits exactly this table."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))


def _dumped(tools: PgTools, access: DatabaseAccess, dbname: str, arguments: Sequence[str]) -> str:
    process = tools.start(
        "pg_dump", ["--schema-only", "--no-owner", "--no-acl", "--no-password", *arguments], access.owner, dbname,
        application="mistudio-ops restore", streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    out, said = process.communicate()
    if process.returncode != 0:
        raise OpsError(f"pg_dump could not read the definitions: {said.decode(errors='replace').strip()}")
    # psql's own commands (\restrict since 2025) are no SQL.
    return "".join(line for line in out.decode().splitlines(keepends=True) if not line.startswith("\\"))


def _run(live: "psycopg.Connection[Any]", script: str) -> None:
    """Run what pg_dump wrote, and take back what it set: its names are qualified, and it waits for locks for ever."""
    live.execute(script.encode())
    live.execute("RESET search_path")
    live.execute(LOCK_TIMEOUT)
