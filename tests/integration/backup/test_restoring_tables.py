"""Single tables and trainings out of a backup: what is missing comes back, what is there stays, or nothing happens."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.database_access import MAINTENANCE_LOCK, DatabaseAccess
from mistudio_ops.errors import LockedError, NothingFoundError, OpsError, PreconditionError, UsageError
from mistudio_ops.operations.backup.soundness import examine
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.rows import TableOutcome
from mistudio_ops.operations.restore.tables import TablesRestored, restore_tables
from mistudio_ops.presentation.restore_tables import tables_result
from tests.support.real_backups import make_backup, rewrite_manifest

pytestmark = pytest.mark.integration
State = dict[str, list[Any]]


def state(access: DatabaseAccess, *but: str) -> State:
    """Return every row of every table that is not a partition, and where the rows of partitions are."""
    found: State = {}
    with access.session() as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            " AND NOT relispartition ORDER BY 1"
        ).fetchall()
        for (name,) in names:
            if name not in but:
                query = f"SELECT tableoid::regclass::text || ' ' || t::text FROM {name} t ORDER BY 1"
                found[name] = connection.execute(query.encode()).fetchall()
    return found


def run(access: DatabaseAccess, *statements: str) -> None:
    with access.session() as connection:
        for statement in statements:
            connection.execute(statement.encode())


@contextmanager
def nothing_changes(access: DatabaseAccess) -> Iterator[None]:
    before = state(access)
    yield
    assert state(access) == before


def by_table(done: TablesRestored) -> dict[str, TableOutcome]:
    return {one.table: one for one in done.tables}


@pytest.fixture
def stored(workplace: Workplace) -> StoredBackup:
    return make_backup(workplace)


def test_rows_that_are_missing_come_back_and_others_stay(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    before = state(access)
    run(
        access,
        "DELETE FROM training_metrics WHERE step % 2 = 0",
        "UPDATE training_metrics SET loss = -1 WHERE step = 1",
        "INSERT INTO training_metrics (training_id, step, timestamp) VALUES ('tr_1', 999, now())",
    )
    done = restore_tables(workplace, stored, ["training_metrics"])
    assert by_table(done)["training_metrics"] == TableOutcome("training_metrics", 100, 50, 0, 50)
    run(access, "DELETE FROM training_metrics WHERE step = 999")
    assert len(state(access)["training_metrics"]) == 100
    with access.session() as connection:
        assert connection.execute("SELECT count(*) FROM training_metrics WHERE loss = -1").fetchone() == (2,)
    done = restore_tables(workplace, stored, ["training_metrics"], replace=True)
    assert by_table(done)["training_metrics"] == TableOutcome("training_metrics", 100, 0, 2, 98)
    assert state(access) == before


WHERE = "training_id LIKE 'tr%2' AND '{x}' <> '{}' AND step <= 10 -- these"


def test_where_chooses(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    run(access, "DELETE FROM training_metrics")
    done = restore_tables(workplace, stored, ["training_metrics"], where=WHERE)
    assert by_table(done)["training_metrics"] == TableOutcome("training_metrics", 10, 10, 0, 0)


@pytest.mark.parametrize("where", ["nonsense =", "no_column = 1", "1", "true); DROP TABLE models; --", "step = 'x'"])
def test_a_where_that_is_none_changes_nothing(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess, where: str
) -> None:
    run(access, "DELETE FROM training_metrics")
    with nothing_changes(access), pytest.raises(UsageError, match="no condition on training_metrics") as caught:
        restore_tables(workplace, stored, ["training_metrics"], where=where)
    assert "training_id" in (caught.value.hint or "")


def test_unknown_names_change_nothing(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    with access.session() as connection:
        row = connection.execute("SELECT min(relname) FROM pg_class WHERE relispartition AND relkind = 'r'").fetchone()
    assert row
    with nothing_changes(access):
        with pytest.raises(NothingFoundError, match="no table trainigs") as caught:
            restore_tables(workplace, stored, ["trainings", "trainigs"])
        assert "trainings" in (caught.value.hint or "")
        with pytest.raises(NothingFoundError, match="no training tr_9"):
            restore_tables(workplace, stored, training="tr_9")
        with pytest.raises(UsageError, match="is a partition of"):
            restore_tables(workplace, stored, [row[0]])


def test_another_revision_changes_nothing(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    run(access, "UPDATE alembic_version SET version_num = '0999'", "DELETE FROM training_metrics")
    with nothing_changes(access), pytest.raises(PreconditionError, match="is of revision 0999"):
        restore_tables(workplace, stored, ["training_metrics"])


def test_a_whole_training_comes_back(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    before = state(access, "trainings")
    run(
        access,
        "DELETE FROM trainings WHERE id = 'tr_1'",
        "DELETE FROM training_metrics WHERE training_id = 'tr_1'",
        "DELETE FROM training_metrics_archive",
    )
    done = restore_tables(workplace, stored, training="tr_1")
    assert {name: one.restored for name, one in by_table(done).items()} == {
        "models": 0, "datasets": 0, "trainings": 1, "checkpoints": 1, "training_metrics": 50,
        "training_metrics_archive": 5, "features": 1, "feature_activations": 3,
    }  # fmt: skip
    assert state(access, "trainings") == before
    with access.session() as connection:
        assert examine(connection).problems == ()


def test_a_training_brings_its_dataset_where_that_is_gone(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    run(access, "DELETE FROM trainings", "DELETE FROM datasets")
    done = restore_tables(workplace, stored, training="tr_2")
    assert by_table(done)["datasets"].restored == 1
    run(access, "UPDATE datasets SET name = 'renamed'")
    done = restore_tables(workplace, stored, training="tr_2", replace=True)
    assert by_table(done)["datasets"].there == 1, "a dataset that is there is none of the training's business"


def test_a_run_that_was_in_progress_comes_back_for_nobody(workplace: Workplace, access: DatabaseAccess) -> None:
    run(access, "UPDATE trainings SET status = 'running', claim = 5, worker = 'w', heartbeat_at = now()")
    stored = make_backup(workplace)
    with nothing_changes(access), pytest.raises(PreconditionError, match="is being worked on"):
        restore_tables(workplace, stored, ["trainings"], where="id = 'tr_1'", replace=True)
    run(access, "DELETE FROM trainings WHERE id = 'tr_1'")
    restore_tables(workplace, stored, training="tr_1")
    with access.session() as connection:
        row = connection.execute("SELECT status, claim, heartbeat_at FROM trainings WHERE id = 'tr_1'").fetchone()
    assert row == ("queued", 1005, None)


def test_rows_that_the_archiver_moved_are_not_missing(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    run(
        access,
        "WITH gone AS (DELETE FROM training_metrics WHERE step > 25 RETURNING *)"
        " INSERT INTO training_metrics_archive SELECT * FROM gone",
        "DELETE FROM training_metrics WHERE step = 1",
    )
    done = restore_tables(workplace, stored, ["training_metrics"])
    assert by_table(done)["training_metrics"] == TableOutcome("training_metrics", 100, 2, 0, 98)


def test_partitions_that_are_missing_are_made_where_rows_need_them(
    workplace: Workplace, access: DatabaseAccess
) -> None:
    run(
        access,
        "CREATE TABLE training_metrics_y2020m01 PARTITION OF training_metrics"
        " FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
        "CREATE TABLE training_metrics_y2020m02 PARTITION OF training_metrics"
        " FOR VALUES FROM ('2020-02-01') TO ('2020-03-01')",
        "INSERT INTO training_metrics (training_id, step, timestamp) VALUES ('tr_1', 1, '2020-01-15')",
    )
    stored, before = make_backup(workplace), state(access)
    run(access, "DROP TABLE training_metrics_y2020m01, training_metrics_y2020m02")
    done = restore_tables(workplace, stored, ["training_metrics"])
    assert by_table(done)["training_metrics"].partitions == ("training_metrics_y2020m01",)
    assert state(access) == before


@pytest.mark.parametrize("table", ["training_metrics", "feature_activations", "trainings", "api_tokens"])
def test_a_table_that_was_dropped_comes_back_with_everything(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess, table: str
) -> None:
    before, forms = state(access, "trainings"), definitions_of(access)
    run(access, f"DROP TABLE {table} CASCADE")
    assert definitions_of(access) != forms
    done = restore_tables(workplace, stored, [table])
    assert by_table(done)[table].recreated
    assert by_table(done)[table].restored == len(before.get(table, "ab"))
    assert state(access, "trainings") == before
    assert definitions_of(access) == forms
    run(
        access,
        "INSERT INTO training_metrics (training_id, step, timestamp) VALUES ('tr_1', 51, now())",
        "INSERT INTO feature_activations (feature_id, activation) VALUES ('ft_1', 1)",
    )


def definitions_of(access: DatabaseAccess) -> list[Any]:
    """Return what makes up the tables: indexes, constraints, defaults, partitions."""
    with access.session() as connection:
        return [
            *connection.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1").fetchall(),
            *connection.execute(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
            ).fetchall(),
            *connection.execute(
                "SELECT table_name, column_name, column_default, is_identity FROM information_schema.columns"
                " WHERE table_schema = 'public' ORDER BY 1, 2"
            ).fetchall(),
            *connection.execute(
                "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition ORDER BY 1"
            ).fetchall(),
        ]


def test_several_dropped_tables_come_back_in_one_piece(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    before, forms = state(access, "trainings"), definitions_of(access)
    run(access, "DROP TABLE checkpoints, features, feature_activations, trainings CASCADE")
    done = restore_tables(workplace, stored, ["feature_activations", "checkpoints", "trainings", "features"])
    assert [one.table for one in done.tables].index("trainings") < 2
    assert state(access, "trainings") == before
    assert definitions_of(access) == forms


def test_rows_whose_parent_is_gone_are_refused_whole(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    run(access, "DELETE FROM trainings WHERE id = 'tr_1'", "DELETE FROM checkpoints")
    with nothing_changes(access), pytest.raises(PreconditionError, match="refer to others that are gone") as caught:
        restore_tables(workplace, stored, ["checkpoints"])
    assert "--table" in (caught.value.hint or "")
    restore_tables(workplace, stored, ["checkpoints", "trainings"])


def test_rows_that_collide_are_refused_whole(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    run(
        access,
        "DELETE FROM trainings",
        "DELETE FROM datasets",
        "INSERT INTO datasets (id, name, kind, path, status) VALUES ('ds_new', 'one', 'text', 'x', 'ready')",
    )
    with nothing_changes(access), pytest.raises(PreconditionError, match=r"do not fit.*\(name\)=\(one\)"):
        restore_tables(workplace, stored, ["datasets", "trainings"])


def test_a_dry_run_counts_and_changes_nothing(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess
) -> None:
    run(access, "DELETE FROM training_metrics", "DROP TABLE api_tokens")
    with access.session() as connection:
        connection.execute("SELECT setval('training_metrics_id_seq', 1)")
    with nothing_changes(access):
        done = restore_tables(workplace, stored, ["training_metrics", "api_tokens"], dry_run=True)
        assert by_table(done)["training_metrics"].restored == 100
        assert "nothing was changed" in tables_result(done).blocks[-1].text  # type: ignore[union-attr]
    with access.session() as connection:
        assert connection.execute("SELECT last_value FROM training_metrics_id_seq").fetchone() == (1,)
    restore_tables(workplace, stored, ["training_metrics"])
    with access.session() as connection:
        assert connection.execute("SELECT last_value FROM training_metrics_id_seq").fetchone() == (100,)


def test_a_table_without_a_key(workplace: Workplace, access: DatabaseAccess) -> None:
    run(access, "CREATE TABLE notes (text json)", "INSERT INTO notes VALUES ('1'), ('1'), ('2'), (NULL)")
    stored, before = make_backup(workplace), state(access)
    run(access, "DELETE FROM notes WHERE ctid IN (SELECT min(ctid) FROM notes WHERE text::text = '1')")
    with pytest.raises(PreconditionError, match="no primary key"):
        restore_tables(workplace, stored, ["notes"], replace=True)
    restore_tables(workplace, stored, ["notes"])
    assert state(access) == before
    assert restore_tables(workplace, stored, ["notes"]).rows == 0


def test_a_busy_database_refuses(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    with access.session() as connection, nothing_changes(access):
        connection.execute("SELECT pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
        with pytest.raises(LockedError):
            restore_tables(workplace, stored, ["training_metrics"])


def test_a_lost_connection_changes_nothing(
    workplace: Workplace, access: DatabaseAccess, admin: "psycopg.Connection[Any]"
) -> None:
    run(
        access,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON training_metrics FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    stored = make_backup(workplace)
    run(access, "DELETE FROM training_metrics")

    def end_it() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            row = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND query LIKE 'INSERT INTO %%training_metrics%%'", (access.name,)
            ).fetchone()  # fmt: skip
            if row:
                return
            time.sleep(0.01)

    thread = threading.Thread(target=end_it)
    with nothing_changes(access):
        thread.start()
        with pytest.raises(OpsError) as caught:
            restore_tables(workplace, stored, ["training_metrics"])
        thread.join()
    assert caught.value.code in {"lost_connection", "load_failed"}


def test_a_damaged_backup_changes_nothing(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    assert stored.manifest is not None
    entry = stored.manifest.files[0]
    path = workplace.directory.path(stored.id) / entry.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    run(access, "DELETE FROM training_metrics")
    with nothing_changes(access), pytest.raises(OpsError) as caught:
        restore_tables(workplace, stored, ["training_metrics"])
    assert caught.value.exit_code == 12


def test_a_table_that_only_the_manifest_has(workplace: Workplace, stored: StoredBackup, access: DatabaseAccess) -> None:
    assert stored.manifest is not None
    tables = (*stored.manifest.tables, replace(stored.manifest.tables[0], name="ghosts"))
    with nothing_changes(access), pytest.raises(NothingFoundError, match="ghosts"):
        restore_tables(workplace, rewrite_manifest(workplace, stored, tables=tables), ["ghosts"])
