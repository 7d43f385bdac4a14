"""Bringing single tables, or all of a training, back out of a backup, while the lab goes on with everything else.

The backup is loaded into a scratch copy; the rows come from there in one transaction of the live database, so all of
them come back or none. The checkpoint files of a training are laid ready before, and get their names after it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from mistudio_ops.domain.backup import Manifest, StoredBackup
from mistudio_ops.domain.table_choice import Choice, chosen, in_order
from mistudio_ops.drivers import catalog
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.snapshot import maintenance_session
from mistudio_ops.drivers.table_form import TableForm, table_form
from mistudio_ops.errors import LockedError, NothingFoundError, PreconditionError, UsageError
from mistudio_ops.operations.backup.loading import loading_tools, sound_manifest
from mistudio_ops.operations.backup.scratch import scratch_copy
from mistudio_ops.operations.backup.soundness import SEQUENCES
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.definitions import (
    LOCK_TIMEOUT,
    Definitions,
    definitions,
    finish_tables,
    make_tables,
)
from mistudio_ops.operations.restore.rows import Rows, TableOutcome, condition
from mistudio_ops.operations.restore.training_files import files_ready, place_files, training_files

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True)
class TablesRestored:
    """What came back, by table in the order in which it came. With ``dry_run`` nothing was kept.

    ``checkpoints`` are those whose files came back too.
    """

    backup_id: str
    database: str
    dry_run: bool
    tables: tuple[TableOutcome, ...]
    seconds: float
    checkpoints: int = 0

    @property
    def rows(self) -> int:
        """Rows that were written."""
        return sum(one.restored + one.replaced for one in self.tables)


def restore_tables(
    workplace: Workplace,
    stored: StoredBackup,
    tables: Sequence[str] = (),
    *,
    where: str | None = None,
    training: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
    jobs: int = 1,
    lock_wait: float = 0.0,
) -> TablesRestored:
    """Bring rows back that are missing; with ``replace``, those that are there take their backed up values as well.

    A table that is gone comes back with its definition, indexes and constraints. Rows that the archiver moved since
    are not missing. Runs that were in progress come back as those of a whole restore do.

    Raises:
        UsageError: the options do not fit, or ``where`` is no condition on the table.
        NothingFoundError: the backup has no such table or training.
        PreconditionError: the schemas differ, or rows do not fit those that are there. Nothing was changed.
        LockedError: a backup, a migration or the archiver works on the database.
        VerificationError: the backup is damaged.
    """
    began = monotonic()
    choices = chosen(tables, where, training)
    manifest = sound_manifest(stored)
    _check_known(manifest, choices)
    access = workplace.access()
    _check_revision(access, manifest)
    with workplace.directory.lock(lock_wait):
        identities = workplace.identities(stored, workplace.keys())
        with (
            scratch_copy(workplace, stored, access, identities, jobs=jobs) as name,
            access.session(name, "mistudio-ops restore") as scratch,
        ):
            scratch.execute("SET default_transaction_read_only = on")
            sources = _sources(scratch, choices, training)
            files = training_files(workplace, stored, identities, None if dry_run else training, replace=replace)
            with files_ready(files):
                live = _Live(workplace, access, manifest, dry_run, lock_wait)
                outcomes = _bring(live, scratch, sources, replace=replace)
        placed = place_files(workplace, access, files)
    return TablesRestored(stored.id, access.name, dry_run, tuple(outcomes), monotonic() - began, placed)


def _check_known(manifest: Manifest, choices: Sequence[Choice]) -> None:
    known = manifest.rows_by_table()
    for choice in choices:
        if choice.table.rpartition(".")[2] not in {*known, *(table.name for table in manifest.tables)}:
            raise NothingFoundError(
                f"backup {manifest.id} has no table {choice.table}", hint=f"it has {', '.join(sorted(known))}"
            )


def _check_revision(access: DatabaseAccess, manifest: Manifest) -> None:
    with access.session() as connection:
        revision = catalog.revision(connection)
    if revision != manifest.database.revision:
        raise PreconditionError(
            f"the live schema is of revision {revision}, the backup's of {manifest.database.revision}: "
            "single rows do not fit",
            hint=f"mistudio-ops restore {manifest.id} restores everything, and keeps the database as it is now",
        )


def _sources(
    scratch: "psycopg.Connection[Any]", choices: Sequence[Choice], training: str | None
) -> list[tuple[Choice, TableForm]]:
    """Return the choices with their tables, those first that others refer to."""
    if training is not None and not scratch.execute("SELECT 1 FROM trainings WHERE id = %s", (training,)).fetchone():
        raise NothingFoundError(f"the backup has no training {training}", hint="mistudio-ops backup list has others")
    found: dict[str, tuple[Choice, TableForm]] = {}
    for choice in choices:
        form = table_form(scratch, choice.table)
        if form is None:
            raise NothingFoundError(f"the backup has no table {choice.table}")
        if form.root is not None:
            raise UsageError(
                f"{choice.table} is a partition of {form.root}", hint=f"--table {form.root}, with --where if need be"
            )
        _check_where(scratch, choice, form)
        found[form.full_name] = (choice, form)
    order = in_order({name: form.references for name, (_, form) in found.items()})
    return [found[name] for name in order]


def _check_where(scratch: "psycopg.Connection[Any]", choice: Choice, form: TableForm) -> None:
    import psycopg
    from psycopg import sql

    if choice.where is None:
        return
    query = sql.SQL("SELECT count(*) FROM {}{}").format(form.identifier, condition(choice))
    try:
        scratch.execute(query, prepare=True)  # prepared: it can be one statement only
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise UsageError(
            f"--where is no condition on {choice.table}: {str(error).strip().splitlines()[0]}",
            hint=f"its columns are {', '.join(form.columns)}",
        ) from error


@dataclass(frozen=True, slots=True)
class _Live:
    """The live database that rows come back into."""

    workplace: Workplace
    access: DatabaseAccess
    manifest: Manifest
    dry_run: bool
    wait: float

    def definitions(self, scratch: "psycopg.Connection[Any]", missing: list[TableForm]) -> Definitions | None:
        """Return what makes the missing tables; None where none is."""
        if not missing:
            return None
        return definitions(loading_tools(self.workplace, self.access, self.manifest), self.access, scratch, missing)


def _bring(
    place: _Live, scratch: "psycopg.Connection[Any]", sources: Sequence[tuple[Choice, TableForm]], *, replace: bool
) -> list[TableOutcome]:
    outcomes = []
    with maintenance_session(place.access, wait=place.wait) as live, _one_transaction(live, dry_run=place.dry_run):
        missing = [form for _, form in sources if table_form(live, form.full_name) is None]
        made = place.definitions(scratch, missing)
        if made is not None:
            make_tables(live, made)
        for choice, form in sources:
            with place.workplace.reporter.step(f"bring back {form.name}") as step:
                outcomes.append(_bring_table(live, scratch, choice, form, replace, recreated=form in missing))
                step.detail(f"{outcomes[-1].restored} rows restored, {outcomes[-1].replaced} replaced")
        if made is not None:
            finish_tables(live, made)
        if not place.dry_run:  # a sequence does not come back with its transaction
            _move_sequences(live, {outcome.table for outcome in outcomes})
    return outcomes


def _bring_table(
    live: "psycopg.Connection[Any]",
    scratch: "psycopg.Connection[Any]",
    choice: Choice,
    form: TableForm,
    replace: bool,
    *,
    recreated: bool,
) -> TableOutcome:
    target = table_form(live, form.full_name)
    if target is None:
        raise PreconditionError(f"table {form.full_name} could not be made")
    rows = Rows(live, scratch, form, target, choice, replace)
    return rows.fill() if recreated else rows.bring()


@contextmanager
def _one_transaction(live: "psycopg.Connection[Any]", *, dry_run: bool) -> Iterator[None]:
    """Keep all or nothing, and say what did not fit."""
    import psycopg

    try:
        with live.transaction(force_rollback=dry_run):
            live.execute(LOCK_TIMEOUT)
            yield
    except psycopg.errors.LockNotAvailable as error:
        raise LockedError("another session holds a table that rows come back into", hint="try again") from error
    except psycopg.errors.ForeignKeyViolation as error:
        raise PreconditionError(
            f"rows refer to others that are gone: {_said(error)}",
            hint="bring those back as well: add --table for the table that they are in",
        ) from error
    except psycopg.errors.IntegrityError as error:
        raise PreconditionError(
            f"rows do not fit those that are there: {_said(error)}",
            hint="--replace replaces rows of the same key; --where leaves rows out",
        ) from error
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise PreconditionError(f"the rows cannot be brought back: {_said(error)}") from error


def _said(error: "psycopg.Error") -> str:
    detail = error.diag.message_detail
    message = error.diag.message_primary or str(error).strip()
    return f"{message} ({detail})" if detail else message


def _move_sequences(live: "psycopg.Connection[Any]", tables: set[str]) -> None:
    """Move sequences past the ids that came back; never backwards."""
    from psycopg import sql

    for sequence, table, column in live.execute(SEQUENCES).fetchall():
        if table.rpartition(".")[2].strip('"') in tables:
            query = sql.SQL(
                "SELECT setval({name}, highest) FROM (SELECT max({column}) AS highest FROM {table}) m, {sequence} s"
                " WHERE highest >= s.last_value"
            )
            live.execute(
                query.format(
                    name=sql.Literal(sequence), column=sql.SQL(column), table=sql.SQL(table), sequence=sql.SQL(sequence)
                )
            )
