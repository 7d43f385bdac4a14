"""The form of a table: its columns, its key, what it refers to, its partitions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

#: ``schema.name``, or a name that is in ``public`` or in one schema only.
_FIND = """
SELECT n.nspname, c.relname, c.oid, c.relkind = 'p',
       CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::regclass::text END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'pg_catalog', 'pg_toast')
  AND %(text)s::text IN (c.relname::text, n.nspname || '.' || c.relname)
ORDER BY n.nspname <> 'public' LIMIT 1
"""
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
WHERE i.indrelid = %s AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)
"""
_REFERENCES = """
SELECT DISTINCT n.nspname || '.' || c.relname
FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.conrelid = %s AND f.contype = 'f'
"""
_PARTITIONS = """
SELECT n.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid), pg_get_partition_constraintdef(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = %s ORDER BY 2
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its bound, and the same as a condition on a row."""

    schema: str
    name: str
    bound: str
    condition: str


@dataclass(frozen=True, slots=True)
class TableForm:
    """A table that is not itself a partition. ``columns`` are those that can be written."""

    schema: str
    name: str
    oid: int
    columns: tuple[str, ...]
    key: tuple[str, ...]
    references: frozenset[str]
    partitioned: bool
    partitions: tuple[Partition, ...] = ()
    #: Of a partition: the table that it belongs to.
    root: str | None = None

    @property
    def full_name(self) -> str:
        """Schema and name."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> "sql.Identifier":
        """Schema and name, quoted."""
        from psycopg import sql

        return sql.Identifier(self.schema, self.name)


def table_form(connection: "psycopg.Connection[Any]", text: str) -> TableForm | None:
    """Return the form of the table that ``text`` names; None where there is none."""
    found = connection.execute(_FIND, {"text": text}).fetchone()
    if found is None:
        return None
    schema, name, oid, partitioned, root = found

    def names(query: Any) -> tuple[str, ...]:
        return tuple(str(row[0]) for row in connection.execute(query, (oid,)))

    partitions = tuple(Partition(*row) for row in connection.execute(_PARTITIONS, (oid,)).fetchall())
    return TableForm(
        schema, name, int(oid), names(_COLUMNS), names(_KEY), frozenset(names(_REFERENCES)), bool(partitioned),
        partitions, root,
    )  # fmt: skip
