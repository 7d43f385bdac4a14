"""A deploy that migrates a database with data backs it up first, and proves that backup; else nothing is migrated."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers import releases
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.database_access import MAINTENANCE_LOCK, database_access
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.errors import ExitCode, LockedError, PreviousServesError
from mistudio_ops.operations.deploy import MigrationOptions
from tests.integration.engine.conftest import Studio, end, new_studio
from tests.integration.engine.test_running import all_run, until

pytestmark = pytest.mark.integration
OLD = "0001"


@pytest.fixture(scope="module")
def deployed() -> Iterator[Studio]:
    """A studio with a table of 100 rows."""
    made = new_studio()
    try:
        made.deploy()
        with session(made) as connection:
            connection.execute("CREATE TABLE runs AS SELECT n FROM generate_series(1, 100) n")
        yield made
    finally:
        end(made)


@pytest.fixture
def studio(deployed: Studio, tmp_path: Path) -> Iterator[Studio]:
    """The same, with a configuration that is as it was when the test ends, and no backups."""
    until(lambda: all_run(deployed))
    before = deployed.environment
    backup = replace(before.backup, directory=tmp_path / "backups")
    migrated = str(before.state_dir.parent / "migrated")
    deployed.environment = replace(before, backup=backup, server={**before.server, "STANDIN_MIGRATED": migrated})
    Path(migrated).touch()
    Path(migrated).chmod(0o666)
    Path(migrated).write_text("")
    yield deployed
    deployed.environment = before


def session(studio: Studio) -> "psycopg.Connection[tuple[object, ...]]":
    access = database_access(studio.environment, read_secrets(studio.environment.paths.secrets))
    return access.owner.connect(access.name, "mistudio archive")


def migrations(studio: Studio) -> list[str]:
    """Return the arguments of each migration that was run."""
    return Path(studio.environment.server["STANDIN_MIGRATED"]).read_text().splitlines()


def backups(studio: Studio) -> list[StoredBackup]:
    return BackupDirectory(studio.environment.backups).all()


def current(studio: Studio) -> str | None:
    release = releases.current_release(studio.environment.paths)
    return release.id if release else None


def test_a_proven_backup_comes_first(studio: Studio) -> None:
    studio.deploy(STANDIN_HEAD="0002")
    (stored,) = backups(studio)
    assert stored.good
    assert stored.manifest is not None
    assert stored.manifest.kind == "pre-migrate"
    assert stored.manifest.rows_by_table()["runs"] == 100
    assert stored.marks.verified("restore") is not None
    assert len(migrations(studio)) == 1
    with session(studio) as connection:
        names = [name for (name,) in connection.execute("SELECT datname FROM pg_database")]
    assert sorted(str(name) for name in names) == ["mistudio", "postgres", "template0", "template1"]


def test_the_migration_is_told_how_long_to_wait(studio: Studio) -> None:
    studio.deploy(STANDIN_HEAD="0003", migration=MigrationOptions(lock_wait=7.5, skip_backup=True))
    assert migrations(studio) == ["--json --lock-wait 7.5"]


@pytest.mark.parametrize(
    ("head", "skip"), [(OLD, False), ("0004", True)], ids=["nothing to migrate", "the operator does not want one"]
)
def test_no_backup(studio: Studio, head: str, skip: bool) -> None:
    studio.deploy(STANDIN_HEAD=head, LOG_LEVEL=f"{head}-{skip}", migration=MigrationOptions(skip_backup=skip))
    assert backups(studio) == []
    assert len(migrations(studio)) == 1


def test_a_database_without_rows_needs_none(studio: Studio) -> None:
    with session(studio) as connection:
        connection.execute("CREATE TABLE kept AS SELECT * FROM runs")
        connection.execute("DROP TABLE runs")
        connection.execute("ALTER TABLE kept RENAME TO alembic_version")  # it holds no data of anybody's
    try:
        studio.deploy(STANDIN_HEAD="0005")
    finally:
        with session(studio) as connection:
            connection.execute("ALTER TABLE alembic_version RENAME TO runs")
    assert backups(studio) == []


def test_no_backup_means_no_migration(studio: Studio, tmp_path: Path) -> None:
    serving = current(studio)
    (tmp_path / "a-file").write_text("no folder can be made below")
    backup = replace(studio.environment.backup, directory=tmp_path / "a-file" / "backups")
    studio.environment = replace(studio.environment, backup=backup)
    with pytest.raises(PreviousServesError) as caught:
        studio.deploy(STANDIN_HEAD="0006")
    assert "no proven backup could be made before the migration" in caught.value.message
    assert f"{serving} goes on serving" in caught.value.message
    assert "--skip-backup" in (caught.value.hint or "")
    assert migrations(studio) == []
    assert current(studio) == serving
    until(lambda: all_run(studio))


def test_a_backup_that_cannot_be_restored_means_no_migration(studio: Studio) -> None:
    """A check that asks another table passes today, and fails when a dump is loaded: that table is still empty."""
    serving = current(studio)
    with session(studio) as connection:
        connection.execute("CREATE TABLE b_numbers AS SELECT 1 AS n")
        connection.execute(
            "CREATE FUNCTION known(int) RETURNS boolean LANGUAGE sql AS"
            " 'SELECT EXISTS (SELECT FROM public.b_numbers WHERE n = $1)'"
        )
        connection.execute("CREATE TABLE a_first (n int CHECK (known(n)))")
        connection.execute("INSERT INTO a_first VALUES (1)")
    try:
        with pytest.raises(PreviousServesError) as caught:
            studio.deploy(STANDIN_HEAD="0007")
    finally:
        with session(studio) as connection:
            connection.execute("DROP TABLE a_first, b_numbers; DROP FUNCTION known")
    assert "could not be proven by a restore" in caught.value.message
    assert migrations(studio) == []
    assert current(studio) == serving
    (stored,) = backups(studio)
    assert not stored.good


def test_a_deploy_waits_for_a_backup_that_runs(studio: Studio) -> None:
    holder = session(studio)
    holder.execute("SELECT pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
    timer = threading.Timer(1.0, holder.close)
    timer.start()
    studio.deploy(STANDIN_HEAD="0008", migration=MigrationOptions(lock_wait=60))
    timer.join()
    assert len(backups(studio)) == 1
    assert len(migrations(studio)) == 1


def test_a_deploy_that_does_not_wait_says_for_whom(studio: Studio) -> None:
    serving = current(studio)
    with session(studio) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
        with pytest.raises(LockedError) as caught:
            studio.deploy(STANDIN_HEAD="0009", migration=MigrationOptions(lock_wait=0.3))
    assert caught.value.exit_code == ExitCode.LOCKED
    assert "mistudio archive" in caught.value.message
    assert f"{serving} goes on serving" in caught.value.message
    assert (migrations(studio), backups(studio), current(studio)) == ([], [], serving)


def test_a_migration_that_finds_the_database_locked(studio: Studio) -> None:
    serving = current(studio)
    with pytest.raises(LockedError) as caught:
        studio.deploy(STANDIN_MIGRATE="locked", LOG_LEVEL="locked")
    assert "the archiver holds the lock" in caught.value.message
    assert "waiting for" not in caught.value.message
    assert "the migration waits for the archiver" in studio.reporter.notes
    assert current(studio) == serving
