"""Restoring a whole database beside a lab that pretends to run: what is live afterwards, and what is kept."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from mistudio_ops.domain.restore_plan import Loss
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.lock import exclusive
from mistudio_ops.engines.state_files import is_ours
from mistudio_ops.errors import LockedError, NothingFoundError, OpsError, PreconditionError, VerificationError
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.restore.afterwards import abort, finalize, status, undo
from mistudio_ops.operations.restore.interrupted import InterruptedRestoreError
from mistudio_ops.operations.restore.restore import NotConfirmedError, Options, restore
from mistudio_ops.operations.restore.run import RestoreFailedError
from mistudio_server.db import migrations
from tests.support.backup_workplace import workplace_of
from tests.support.real_backups import rewrite_manifest
from tests.support.restores import UNITS, Restorable, restorable

pytestmark = pytest.mark.integration


def test_every_row_comes_back_and_the_old_database_is_kept(lab: Restorable) -> None:
    result = restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert lab.rows() == [1, 2, 3]
    assert (lab.ours(), lab.fake.running) == (["before"], set(UNITS))
    assert result.kept is not None
    assert result.kept.name == lab.names()[0]
    assert result.kept.bytes > 1_000_000
    (safety,) = lab.backups("pre-restore")
    assert result.safety == safety.id
    assert [call for call in lab.fake.engine.calls if call.startswith("stop")] != []
    assert [timing.step for timing in result.timings] == [
        "safety", "copy", "load", "compare", "migrate", "settle", "stop", "swap", "start", "health"
    ]  # fmt: skip
    assert lab.workplace.directory.get(lab.stored.id).marks.verified("restore") is not None


def test_the_safety_backup_has_what_was_lost(lab: Restorable) -> None:
    result = restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert result.safety is not None
    restore(lab.workplace, result.safety, lab.confirmed(skip_safety=True), lab=lab.lab)
    assert lab.rows() == [1, 2, 3, 4, 5]


def test_the_loss_is_told_table_by_table(lab: Restorable) -> None:
    with lab.access.session() as connection:
        connection.execute("CREATE TABLE newer (x int); INSERT INTO newer VALUES (1)")
        connection.execute("DROP TABLE features CASCADE")
        connection.execute(
            "INSERT INTO datasets (id, name, kind, path, status) VALUES ('d', 'd', 'activations', 'd', 'ready')"
        )
        connection.execute(
            "INSERT INTO trainings (id, name, dataset_id, status, hyperparameters, total_steps, step)"
            " VALUES ('t', 'long one', 'd', 'running', '{}', 100, 40)"
        )
    result = restore(lab.workplace, "latest", Options(dry_run=True), lab=lab.lab)
    assert result.loss is not None
    tables = {one.table: (one.now, one.backup) for one in result.loss.tables}
    assert tables["counting"] == (5, 3)
    assert tables["newer"] == (1, None)
    assert tables["features"] == (None, 0)
    assert [(one.id, one.step) for one in result.loss.running] == [("t", 40)]
    assert result.loss.rows == 2 + 1 + 1 + 1
    assert lab.ours() == []


@pytest.mark.parametrize(("said", "told"), [(None, "not confirmed"), ("mistudio_2", "'mistudio_2' was said")])
def test_without_the_databases_name_nothing_happens(lab: Restorable, said: str | None, told: str) -> None:
    with pytest.raises(NotConfirmedError, match=told) as caught:
        restore(lab.workplace, "latest", Options(confirm=said), lab=lab.lab)
    assert caught.value.exit_code == 2
    assert caught.value.hint == f"mistudio-ops restore {lab.stored.id} -e lab --confirm {lab.access.name}"
    assert caught.value.result.loss is not None
    assert (lab.rows(), lab.ours(), lab.backups("pre-restore")) == ([1, 2, 3, 4, 5], [], [])
    assert lab.fake.engine.calls == []


def test_who_can_be_asked_is_asked(lab: Restorable) -> None:
    asked: list[Loss] = []

    def ask(loss: Loss) -> str:
        asked.append(loss)
        return lab.access.name

    restore(lab.workplace, "latest", Options(jobs=1), ask=ask, lab=lab.lab)
    assert (asked[0].rows, lab.rows()) == (2, [1, 2, 3])


def test_a_dropped_table_comes_back(lab: Restorable) -> None:
    with lab.access.session() as connection:
        connection.execute("DROP TABLE counting")
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert lab.rows() == [1, 2, 3]


def test_a_database_that_is_gone_comes_back_without_a_safety_backup(lab: Restorable) -> None:
    databases_before = lab.access.name
    with lab.access.admin_session() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(lab.access.name)))
    result = restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert result.loss is not None
    assert result.loss.problem == f"there is no database {databases_before} now"
    assert (lab.rows(), lab.ours(), result.kept, result.safety) == ([1, 2, 3], [], None, None)


def test_a_database_that_cannot_be_dumped_stops_it_and_says_how_to_go_on(lab: Restorable) -> None:
    with lab.access.session() as connection:  # a function of a language's that is not there any more
        connection.execute("CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.execute("UPDATE pg_proc SET prolang = 999999 WHERE proname = 'broken'")
    with pytest.raises(PreconditionError, match="cannot be backed up") as caught:
        restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert "--skip-safety-backup" in (caught.value.hint or "")
    assert (lab.rows(), lab.ours()) == ([1, 2, 3, 4, 5], [])
    restore(lab.workplace, "latest", lab.confirmed(skip_safety=True), lab=lab.lab)
    assert lab.rows() == [1, 2, 3]


def test_health_that_fails_after_the_swap_swaps_back(lab: Restorable) -> None:
    lab.fake.answers = [{}, {"api": "503"}]
    with pytest.raises(RestoreFailedError, match="runs on the database from before again") as caught:
        restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert caught.value.exit_code == 1
    assert (lab.rows(), lab.ours(), lab.fake.running) == ([1, 2, 3, 4, 5], [], set(UNITS))
    assert status(lab.workplace, lab=lab.lab).interrupted is None
    restore(lab.workplace, "latest", lab.confirmed(skip_safety=True), lab=lab.lab)
    assert lab.rows() == [1, 2, 3]


def test_what_failed_before_may_fail_after(lab: Restorable) -> None:
    lab.fake.answers = [{"api": "redis is away"}, {"api": "redis is away"}]
    result = restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert result.warnings == ("api fails, as it did before: redis is away",)
    assert lab.rows() == [1, 2, 3]


def test_a_lab_that_is_down_is_restored_and_left_down(lab: Restorable) -> None:
    lab.fake.engine.shutdown()
    result = restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert [timing.step for timing in result.timings][-1] == "swap"
    assert (lab.rows(), lab.fake.running, lab.fake.asked) == ([1, 2, 3], set(), [])


def test_runs_in_progress_go_back_to_the_queue_and_old_claims_are_void(lab: Restorable, database_url: str) -> None:
    with lab.access.session() as connection:
        connection.execute(
            "INSERT INTO datasets (id, name, kind, path, status) VALUES ('d', 'd', 'activations', 'd', 'ready')"
        )
        for name in ("running", "pausing", "stopping", "paused", "completed"):
            connection.execute(
                "INSERT INTO trainings (id, name, dataset_id, status, hyperparameters, total_steps, claim, attempts)"
                " VALUES (%s, 'x', 'd', %s, '{}', 100, 7, 1)",
                (name, name),
            )
    made = create(lab.workplace, kind="manual", include=())
    restore(lab.workplace, made.id, lab.confirmed(), lab=lab.lab)
    with lab.access.session() as connection:
        found = connection.execute("SELECT id, status, claim, attempts FROM trainings ORDER BY id").fetchall()
    assert found == [
        ("completed", "completed", 1007, 1), ("paused", "paused", 1007, 1), ("pausing", "paused", 1007, 1),
        ("running", "queued", 1007, 1), ("stopping", "cancelled", 1007, 1),
    ]  # fmt: skip


def test_a_schema_that_this_release_does_not_know_is_refused(lab: Restorable) -> None:
    assert lab.stored.manifest is not None
    rewrite_manifest(lab.workplace, lab.stored, database=replace(lab.stored.manifest.database, revision="9999_future"))
    refused(lab, PreconditionError, "9999_future, which this release does not know")


def test_a_dump_of_a_newer_server_is_refused(lab: Restorable) -> None:
    assert lab.stored.manifest is not None
    newer = replace(lab.stored.manifest.database, server_major=99, server_version="99.1")
    rewrite_manifest(lab.workplace, lab.stored, database=newer)
    refused(lab, PreconditionError, r"PostgreSQL 99\.1, and the server here is older")


def test_an_extension_that_the_server_lacks_is_refused(lab: Restorable) -> None:
    assert lab.stored.manifest is not None
    rewrite_manifest(
        lab.workplace, lab.stored, database=replace(lab.stored.manifest.database, extensions=("postgis_x",))
    )
    refused(lab, PreconditionError, "lacks the extensions postgis_x")


def test_a_flipped_bit_is_refused_and_marked(lab: Restorable) -> None:
    path = next(lab.workplace.directory.path(lab.stored.id).glob("database*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(lab, VerificationError, "is not what was written")
    assert not lab.workplace.directory.get(lab.stored.id).good
    refused(lab, VerificationError, "its hash verification failed")


def test_counts_that_do_not_fit_never_serve(lab: Restorable) -> None:
    assert lab.stored.manifest is not None
    tables = tuple(replace(one, rows=9) if one.name == "counting" else one for one in lab.stored.manifest.tables)
    rewrite_manifest(lab.workplace, lab.stored, tables=tables)
    refused(lab, VerificationError, "counting has 3 rows; 9 were backed up")
    assert not lab.workplace.directory.get(lab.stored.id).good


def test_a_bad_backup_names_the_newest_good_one(lab: Restorable) -> None:
    (lab.workplace.directory.path(lab.stored.id) / "manifest.json").write_text("{")
    good = create(lab.workplace, kind="manual", include=())
    with pytest.raises(VerificationError, match="cannot be used") as caught:
        restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert caught.value.hint == f"the newest good one is {good.id}"


def test_no_such_backup(lab: Restorable) -> None:
    refused(lab, NothingFoundError, "no backup 'nonsense'", backup="nonsense")


def test_nothing_deployed(lab: Restorable) -> None:
    (lab.workplace.environment.state_dir / "mistudio-environment.json").unlink()
    refused(lab, PreconditionError, "nothing is deployed")


def refused(lab: Restorable, kind: type[OpsError], told: str, *, backup: str | None = None) -> None:
    with pytest.raises(kind, match=told):
        restore(lab.workplace, backup or lab.stored.id, lab.confirmed(skip_safety=True), lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == ([1, 2, 3, 4, 5], [], set(UNITS))


@pytest.mark.parametrize("what", ["environment", "backups"])
def test_who_works_there_is_not_disturbed(lab: Restorable, what: str) -> None:
    environment = lab.workplace.environment
    path = environment.paths.lock if what == "environment" else lab.workplace.directory.root / "lock"
    with exclusive(path, "mistudio-ops deploy"), pytest.raises(LockedError, match="mistudio-ops deploy"):
        restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert (lab.rows(), lab.ours()) == ([1, 2, 3, 4, 5], [])


def test_maintenance_of_the_database_is_not_cut_in_the_middle(lab: Restorable) -> None:
    with lab.access.session(application="the archiver") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (0x6D69_5374_7564_696F,))
        with pytest.raises(LockedError, match="the archiver"):
            restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
        assert not connection.closed
    assert (lab.rows(), lab.ours(), lab.fake.running) == ([1, 2, 3, 4, 5], [], set(UNITS))


def test_sessions_that_cannot_be_stopped_end_with_the_swap(lab: Restorable) -> None:
    stranger = lab.access.owner.connect(lab.access.name)
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    with pytest.raises(psycopg.OperationalError):
        stranger.execute("INSERT INTO counting VALUES (6)")
    stranger.close()
    assert lab.rows() == [1, 2, 3]


def test_undo_and_undo_of_the_undo(lab: Restorable) -> None:
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    lab.add(30)
    undone = undo(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == ([1, 2, 3, 4, 5], ["before"], set(UNITS))
    assert undone.plan.kind == "undo"
    undo(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours()) == ([1, 2, 3, 30], ["before"])


def test_undo_that_ends_unhealthy_is_taken_back(lab: Restorable) -> None:
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    lab.fake.answers = [{}, {"worker": "silent"}]
    with pytest.raises(RestoreFailedError):
        undo(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == ([1, 2, 3], ["before"], set(UNITS))
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == [1, 2, 3, 4, 5]


def test_undo_without_a_journal_takes_the_only_one(lab: Restorable) -> None:
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    for path in lab.workplace.environment.state_dir.glob("journal.sqlite3*"):
        path.unlink()
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == [1, 2, 3, 4, 5]


def test_undo_with_nothing_to_undo(lab: Restorable) -> None:
    with pytest.raises(NothingFoundError, match="no database from before"):
        undo(lab.workplace, lab=lab.lab)


def test_finalize_removes_clusters_that_were_kept_too(lab: Restorable) -> None:
    folder = lab.workplace.environment.state_dir / "postgres.before-1a2b3c4d"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "1").write_bytes(b"x" * 5000)
    assert [(one.name, one.bytes) for one in status(lab.workplace, lab=lab.lab).others] == [(folder.name, 5000)]
    assert is_ours(folder.name, "local"), "a purge knows it"
    assert finalize(lab.workplace, lab=lab.lab).bytes == 5000
    assert not folder.exists()
    with pytest.raises(NothingFoundError):
        finalize(lab.workplace, lab=lab.lab)


def test_finalize_drops_what_was_kept(lab: Restorable) -> None:
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    kept = status(lab.workplace, lab=lab.lab).others
    result = finalize(lab.workplace, lab=lab.lab)
    assert result.dropped == kept
    assert result.bytes > 1_000_000
    assert (lab.rows(), lab.ours()) == ([1, 2, 3], [])
    with pytest.raises(NothingFoundError):
        finalize(lab.workplace, lab=lab.lab)


def test_two_restores_keep_both_databases(lab: Restorable) -> None:
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    lab.add(60)
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert lab.ours() == ["before", "before"]
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == [1, 2, 3, 60]
    assert len(finalize(lab.workplace, lab=lab.lab).dropped) == 2


def test_a_copy_that_nobody_knows_is_in_the_way_until_aborted(lab: Restorable) -> None:
    assert lab.stored.manifest is not None
    name = databases.database_name(lab.access.name, "restore", "0123abcd")
    databases.create_database(lab.access, name, lab.stored.manifest.database)
    with pytest.raises(InterruptedRestoreError, match=name):
        restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert abort(lab.workplace, lab=lab.lab).dropped == (name,)
    with pytest.raises(NothingFoundError):
        abort(lab.workplace, lab=lab.lab)
    restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert lab.rows() == [1, 2, 3]


def test_what_cannot_be_taken_back_stays_resumable(lab: Restorable) -> None:
    lab.fake.answers = [{}, {"api": "503"}]
    stop, stopped = lab.fake.engine.stop, []

    def stop_once(name: str) -> None:
        if name in stopped:
            raise PreconditionError("the supervisor is gone")
        stopped.append(name)
        stop(name)

    lab.fake.engine.stop = stop_once  # type: ignore[method-assign]
    with pytest.raises(InterruptedRestoreError, match="api: 503; and it could not be taken back: the supervisor"):
        restore(lab.workplace, "latest", lab.confirmed(), lab=lab.lab)
    assert status(lab.workplace, lab=lab.lab).swapped
    lab.fake.engine.stop = stop  # type: ignore[method-assign]
    abort(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.fake.running) == ([1, 2, 3, 4, 5], set(UNITS))


@pytest.fixture
def owned(postgres_admin: str, tmp_path: Path) -> Iterator[Restorable]:
    """A database whose owner has CREATEDB and no other right, as on a server that somebody else runs."""
    name = f"owner_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(name), sql.Literal(name))
        )
        admin.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
        url = make_url(postgres_admin.replace("postgresql:", "postgresql+psycopg:"))
        url = url.set(username=name, password=name, database=name)
        migrations.upgrade(url)
        text = url.render_as_string(hide_password=False)
        made = restorable(workplace_of(text, tmp_path), text)
        yield made
        for one in [*lab_databases(made), name]:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(one)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def lab_databases(lab: Restorable) -> list[str]:
    return [one.name for one in databases.list_ours(lab.access)]


def test_an_owner_without_other_rights_can_restore_undo_and_finalize(owned: Restorable) -> None:
    stranger = owned.access.owner.connect(owned.access.name)
    restore(owned.workplace, "latest", owned.confirmed(), lab=owned.lab)
    assert owned.rows() == [1, 2, 3]
    stranger.close()
    undo(owned.workplace, lab=owned.lab)
    assert owned.rows() == [1, 2, 3, 4, 5]
    assert finalize(owned.workplace, lab=owned.lab).bytes > 0
    assert owned.ours() == []
