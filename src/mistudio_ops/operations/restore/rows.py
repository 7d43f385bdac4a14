"""Bringing rows of one table out of the scratch copy into the live one, within the live one's transaction."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mistudio_ops.domain.table_choice import SIBLINGS, Choice
from mistudio_ops.drivers.table_form import Partition, TableForm, table_form
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.restore.settle import SETTLE

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

_IN_PROGRESS = ("running", "pausing", "stopping", "processing")
_INSERT = "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {incoming}"
_BUSY = "SELECT t.id FROM {target} t JOIN {incoming} i USING (id) WHERE t.status = ANY(%s) LIMIT 1"
#: By their text: not every type can be compared.
_DROP_EQUAL = """
DELETE FROM {incoming} i USING {target} t WHERE {same_key} AND ROW({t_columns})::text = ROW({i_columns})::text
"""
#: Without a key, two rows are the same when all of them is; each stands for one.
_DROP_TWINS = """
WITH kept AS (SELECT ROW({columns})::text AS text,
                     row_number() OVER (PARTITION BY ROW({columns})::text) AS nth FROM {table}),
     mine AS (SELECT ctid AS place, ROW({columns})::text AS text,
                     row_number() OVER (PARTITION BY ROW({columns})::text) AS nth FROM {incoming})
DELETE FROM {incoming} i USING mine JOIN kept USING (text, nth) WHERE i.ctid = mine.place
"""


@dataclass(frozen=True, slots=True)
class TableOutcome:
    """What came back into one table: of ``selected`` rows of the backup, ``there`` were left as they are."""

    table: str
    selected: int
    restored: int
    replaced: int
    there: int
    recreated: bool = False
    partitions: tuple[str, ...] = ()


@dataclass(slots=True)
class Rows:
    """The rows of one choice on their way."""

    live: "psycopg.Connection[Any]"
    scratch: "psycopg.Connection[Any]"
    source: TableForm
    target: TableForm
    choice: Choice
    replace: bool
    incoming: "sql.Identifier" = field(init=False)
    columns: "sql.Composed" = field(init=False)

    def __post_init__(self) -> None:
        from psycopg import sql

        self.incoming = sql.Identifier(f"incoming_{self.source.oid}")
        self.columns = sql.SQL(", ").join(map(sql.Identifier, self.source.columns))

    def bring(self) -> TableOutcome:
        """Bring the rows into a table that was there all the time.

        Raises:
            PreconditionError: the table has another form or no key, or a run is in progress. Nothing is kept.
        """
        self._check_form()
        selected = self._fetch()
        if self.replace and not self.choice.only_missing:
            self._check_idle()
            there = self._drop_equal()
            self._settle()
            replaced = self._replace()
        else:
            there, replaced = self._drop_present(self.target), 0
            self._settle()
        there += self._drop_in_sibling()
        partitions = self._make_partitions()
        restored = self._run(
            "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {incoming}"
        )
        return TableOutcome(self.target.name, selected, restored, replaced, there, partitions=partitions)

    def fill(self) -> TableOutcome:
        """Bring the rows into a table that was just made, and has no index yet."""
        selected = self._fetch()
        self._settle()
        restored = self._run(
            "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {incoming}"
        )
        return TableOutcome(self.target.name, selected, restored, 0, 0, recreated=True)

    def _check_form(self) -> None:
        if set(self.source.columns) != set(self.target.columns):
            odd = sorted(set(self.source.columns) ^ set(self.target.columns))
            raise PreconditionError(
                f"{self.target.full_name} has other columns than the backed up one: {', '.join(odd)}",
                hint="restore the whole backup instead: mistudio-ops restore BACKUP",
            )
        if self.replace and not self.choice.only_missing and not self.target.key:
            raise PreconditionError(
                f"{self.target.full_name} has no primary key, so it cannot be said which rows to replace",
                hint="leave --replace out: rows that are missing come back",
            )

    def _fetch(self) -> int:
        """Copy the chosen rows into a temporary table, without a copy of them in our memory."""
        self._run("CREATE TEMP TABLE {incoming} ON COMMIT DROP AS SELECT {columns} FROM {target} WITH NO DATA")
        reading = self._composed("COPY (SELECT {columns} FROM {source}{where}) TO STDOUT", where=condition(self.choice))
        writing = self._composed("COPY {incoming} ({columns}) FROM STDIN")
        with self.scratch.cursor() as source, self.live.cursor() as target:
            with source.copy(reading) as out, target.copy(writing) as into:
                for block in out:
                    into.write(block)
            count = target.rowcount
        self._run("ANALYZE {incoming}")
        return count

    def _check_idle(self) -> None:
        """A row that a worker is writing cannot be put back under its hands."""
        if self.target.name not in SETTLE:
            return
        query = self._composed(_BUSY)
        row = self.live.execute(query, (list(_IN_PROGRESS),)).fetchone()
        if row is not None:
            raise PreconditionError(
                f"{row[0]} of {self.target.name} is being worked on", hint="stop it first, or wait for its end"
            )

    def _drop_equal(self) -> int:
        """Rows that are there and the same need no replacing."""
        return self._run(_DROP_EQUAL)

    def _drop_present(self, table: TableForm) -> int:
        if table.key:
            return self._run("DELETE FROM {incoming} i USING {table} t WHERE {same_key}", table=table.identifier)
        return self._run(_DROP_TWINS, table=table.identifier)

    def _drop_in_sibling(self) -> int:
        """The archiver moved them since: they are not missing."""
        name = SIBLINGS.get(self.target.name)
        sibling = table_form(self.live, f"{self.target.schema}.{name}") if name else None
        return self._drop_present(sibling) if sibling is not None and sibling.key == self.target.key else 0

    def _settle(self) -> None:
        if self.target.name in SETTLE and self.target.schema == "public":
            self._run(SETTLE[self.target.name])

    def _replace(self) -> int:
        replaced = self._run("UPDATE {target} t SET ({columns}) = ROW({i_columns}) FROM {incoming} i WHERE {same_key}")
        self._drop_present(self.target)
        return replaced

    def _make_partitions(self) -> tuple[str, ...]:
        """Make those that the rows need and the live table lacks."""
        bounds = {one.bound for one in self.target.partitions}
        lacking = [one for one in self.source.partitions if one.bound not in bounds and self._needed(one)]
        for one in lacking:
            self._make_partition(one)
        return tuple(one.name for one in lacking)

    def _needed(self, partition: Partition) -> bool:
        query = self._composed("SELECT EXISTS (SELECT FROM {incoming}{where})", where=_where(partition.condition))
        return self.live.execute(query).fetchone() == (True,)

    def _make_partition(self, partition: Partition) -> None:
        from psycopg import sql

        name = sql.Identifier(partition.schema, partition.name)
        self._run("CREATE TABLE {name} (LIKE {target} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)", name=name)
        bound = sql.SQL(partition.bound)
        self._run("ALTER TABLE {target} ATTACH PARTITION {name} {bound}", name=name, bound=bound)

    def _run(self, text: str, **names: "sql.Composable") -> int:
        return self.live.execute(self._composed(text, **names)).rowcount

    def _composed(self, text: str, **names: "sql.Composable") -> "sql.Composed":
        from psycopg import sql

        def of(alias: str) -> sql.Composed:
            return sql.SQL(", ").join(sql.Identifier(alias, column) for column in self.source.columns)

        same_key = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("i", column), sql.Identifier("t", column))
            for column in self.target.key
        )
        return sql.SQL(text).format(
            incoming=self.incoming, columns=self.columns, source=self.source.identifier, target=self.target.identifier,
            same_key=same_key, t_columns=of("t"), i_columns=of("i"), **names,
        )  # fmt: skip


def condition(choice: Choice) -> "sql.Composable":
    """Return the choice's condition as the end of a query; nothing for all rows."""
    from psycopg import sql

    return sql.SQL("") if choice.where is None else _where(choice.where)


def _where(text: str) -> "sql.Composable":
    from psycopg import sql

    return sql.SQL(" WHERE (\n") + sql.SQL(text) + sql.SQL("\n)")  # on its own line: a comment ends with it
