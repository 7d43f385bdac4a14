"""Is a restored database one that the studio can work with? Questions that need no knowledge of the backup."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from mistudio_ops.drivers import catalog

if TYPE_CHECKING:
    import psycopg

_CHART: LiteralString = """
SELECT step, loss, timestamp FROM training_metrics
WHERE training_id = (SELECT min(training_id) FROM training_metrics)
UNION ALL
SELECT step, loss, timestamp FROM training_metrics_archive
WHERE training_id = (SELECT min(training_id) FROM training_metrics)
ORDER BY step LIMIT 1000
"""
_FEATURES: LiteralString = """
SELECT * FROM features f JOIN feature_activations a ON a.feature_id = f.id ORDER BY a.activation DESC LIMIT 50
"""
_KNOWN = "SELECT bool_and(to_regclass(t) IS NOT NULL) FROM unnest(%s::text[]) t"
#: What the lists, the charts and the downloads of the web page ask, by the tables that they need.
_QUESTIONS: tuple[tuple[tuple[str, ...], LiteralString], ...] = (
    (("trainings",), "SELECT * FROM trainings ORDER BY created_at DESC, id DESC LIMIT 50"),
    (("trainings",), "SELECT status, count(*) FROM trainings GROUP BY status"),
    (("models",), "SELECT * FROM models ORDER BY created_at DESC, id DESC LIMIT 50"),
    (("datasets", "models"), "SELECT * FROM datasets d LEFT JOIN models m ON m.id = d.model_id ORDER BY d.id LIMIT 50"),
    (("checkpoints", "trainings"), "SELECT * FROM checkpoints JOIN trainings t ON t.id = training_id LIMIT 50"),
    (
        ("training_metrics", "training_metrics_archive", "trainings"),
        _CHART,
    ),
    (
        ("features", "feature_activations"),
        _FEATURES,
    ),
)
#: An index of a partitioned table is invalid while a partition's is missing; others are not in a dump at all.
_INVALID_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indrelid
WHERE NOT (indisvalid AND indisready) AND c.relnamespace::regnamespace::text NOT LIKE 'pg\\_%' ORDER BY 1
"""
_UNVALIDATED = """
SELECT conname || ' of ' || conrelid::regclass::text FROM pg_constraint WHERE NOT convalidated ORDER BY 1
"""
_ALL_THERE = "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(%s::text[]) AS name"
#: Sequences that fill a column: identity, serial, or named in its default.
SEQUENCES = """
SELECT DISTINCT s.oid::regclass::text, t.oid::regclass::text, quote_ident(a.attname)
FROM pg_class s
JOIN pg_depend d ON (d.classid, d.objid) = ('pg_class'::regclass, s.oid) AND d.deptype IN ('a', 'i')
JOIN pg_class t ON t.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
JOIN pg_attribute a ON (a.attrelid, a.attnum) = (t.oid, d.refobjsubid)
WHERE s.relkind = 'S' AND NOT t.relispartition
UNION
SELECT s.oid::regclass::text, t.oid::regclass::text, quote_ident(a.attname)
FROM pg_class s
JOIN pg_depend d ON (d.refclassid, d.refobjid) = ('pg_class'::regclass, s.oid) AND d.classid = 'pg_attrdef'::regclass
JOIN pg_attrdef f ON f.oid = d.objid
JOIN pg_class t ON t.oid = f.adrelid
JOIN pg_attribute a ON (a.attrelid, a.attnum) = (t.oid, f.adnum)
WHERE s.relkind = 'S' AND NOT t.relispartition
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Soundness:
    """``problems`` make a restored database useless; ``remarks`` were so in the live one too, most likely."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def examine(connection: "psycopg.Connection[Any]") -> Soundness:
    """Ask a database in autocommit mode all questions."""
    problems = [*_unreadable_tables(connection), *_failed_questions(connection)]
    invalid = [str(name) for (name,) in connection.execute(_INVALID_INDEXES)]
    problems += [f"index {name} is incomplete" for name in invalid]
    unvalidated = [str(name) for (name,) in connection.execute(_UNVALIDATED)]
    remarks = [f"constraint {name} is not validated" for name in unvalidated]
    return Soundness(tuple(problems), (*remarks, *_late_sequences(connection)))


def _unreadable_tables(connection: "psycopg.Connection[Any]") -> list[str]:
    from psycopg import sql

    problems = []
    for schema, name, _ in catalog.tables(connection):
        query = sql.SQL("SELECT * FROM {} LIMIT 10").format(sql.Identifier(schema, name))
        problems += _failure(connection, query, f"{schema}.{name} cannot be read")
    return problems


def _failed_questions(connection: "psycopg.Connection[Any]") -> list[str]:
    problems = []
    for tables, query in _QUESTIONS:
        row = connection.execute(_KNOWN, (list(tables),))
        if row.fetchone() == (True,):
            problems += _failure(connection, query, f"the studio cannot ask {tables[0]}")
    return problems


def _failure(connection: "psycopg.Connection[Any]", query: Any, what: str) -> list[str]:
    import psycopg

    try:
        connection.execute(query).fetchall()
    except psycopg.OperationalError:
        raise  # the server, not the database
    except psycopg.Error as error:
        return [f"{what}: {str(error).strip().splitlines()[0]}"]
    return []


def _late_sequences(connection: "psycopg.Connection[Any]") -> list[str]:
    """A sequence behind its column makes the next insert fail; whoever inserts explicit ids leaves one so."""
    from psycopg import sql

    remarks = []
    for sequence, table, column in connection.execute(SEQUENCES).fetchall():
        query = sql.SQL(
            "SELECT (SELECT max({0}) FROM {1}),"
            " (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {2})"
        ).format(sql.SQL(column), sql.SQL(table), sql.SQL(sequence))
        highest, last = connection.execute(query).fetchone() or (None, 0)
        if highest is not None and highest > last:
            remarks.append(f"sequence {sequence} is at {last}, and {table}.{column} at {highest}")
    return remarks
