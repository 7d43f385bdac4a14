"""Migrations, backups, the archiver and partition upkeep at the same time: each waits, or refuses and says for whom."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from mistudio_ops.drivers import database_access
from mistudio_ops.drivers.catalog import server_major
from mistudio_ops.drivers.pg_tools import Streams
from mistudio_ops.drivers.snapshot import DUMP, SESSION, maintenance_session
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import LockedError
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_server.db import migrations
from mistudio_server.db.engine import Database
from mistudio_server.db.maintenance_lock import MAINTENANCE_LOCK
from mistudio_server.errors import LockedError as ServerLockedError
from mistudio_server.metrics.partitions import premake
from mistudio_server.settings import Settings
from tests.integration.api.test_commands import execute
from tests.support.backup_workplace import workplace_of

pytestmark = pytest.mark.integration

ARCHIVER = "mistudio archive"


@pytest.fixture
def workplace(database_url: str, tmp_path: Path) -> Workplace:
    """Backups of this test's database."""
    return workplace_of(database_url, tmp_path)


@contextlib.contextmanager
def locked(url: str, application: str = ARCHIVER) -> Iterator["psycopg.Connection[object]"]:
    """Hold the maintenance lock, as the archiver does."""
    with psycopg.connect(url.replace("+psycopg", ""), application_name=application, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
        yield holder


@contextlib.contextmanager
def locked_for(url: str, seconds: float, application: str = ARCHIVER) -> Iterator[None]:
    """Hold it for some time, beginning before the block does."""
    with locked(url, application) as holder:
        timer = threading.Timer(seconds, holder.close)
        timer.start()
        yield
        timer.join()


def test_both_packages_mean_the_same_lock() -> None:
    assert database_access.MAINTENANCE_LOCK == MAINTENANCE_LOCK


def test_a_migration_names_whom_it_will_not_wait_for(settings: Settings, empty_database_url: str) -> None:
    with locked(empty_database_url) as holder:
        began = time.monotonic()
        ended = execute(settings, "migrate", "--lock-wait", "0.3", DATABASE_URL=empty_database_url)
        assert time.monotonic() - began < 20
        pid = holder.info.backend_pid
    assert ended.returncode == 11
    assert ended.stdout == ""
    waiting, refused = ended.stderr.strip().splitlines()
    assert waiting.startswith(
        f"mistudio-server: waiting for {ARCHIVER} (mistudio, server process {pid}, connected since"
    )
    assert f"{ARCHIVER} (mistudio, server process {pid}" in refused
    assert "--lock-wait" in refused
    assert migrations.revisions(make_url(empty_database_url)).current is None


def test_the_limit_is_a_setting(settings: Settings, empty_database_url: str) -> None:
    with locked(empty_database_url):
        ended = execute(settings, "migrate", DATABASE_URL=empty_database_url, LOCK_WAIT_SECONDS="0")
    assert ended.returncode == 11


def test_a_migration_waits_for_a_backup_and_goes_on(settings: Settings, empty_database_url: str) -> None:
    with locked_for(empty_database_url, 3, SESSION):
        ended = execute(settings, "migrate", "--json", "--lock-wait", "30", DATABASE_URL=empty_database_url)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["at_head"] is True
    assert f"waiting for {SESSION}" in ended.stderr


def test_a_downgrade_waits_too(settings: Settings, database_url: str) -> None:
    with locked(database_url):
        ended = execute(settings, "migrate", "--to", "base", "--lock-wait", "0")
    assert ended.returncode == 11
    assert migrations.revisions(make_url(database_url)).at_head


def test_looking_and_being_there_already_need_no_lock(settings: Settings, database_url: str) -> None:
    with locked(database_url):
        assert execute(settings, "migrate", "--lock-wait", "0").returncode == 0
        assert execute(settings, "migrate", "--check").returncode == 0


def test_the_lock_goes_with_a_holder_that_is_killed(database_url: str, postgres_admin: str) -> None:
    waiting: list[str] = []
    with locked(database_url) as holder:

        def kill(who: str) -> None:
            waiting.append(who)
            with psycopg.connect(postgres_admin, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (holder.info.backend_pid,))

        found = migrations.downgrade(make_url(database_url), "base", wait=20, on_wait=kill)
        assert found.current is None
    assert len(waiting) == 1


def test_two_migrations_at_once_both_succeed(empty_database_url: str) -> None:
    url, done = make_url(empty_database_url), []

    def migrate() -> None:
        done.append(migrations.upgrade(url, wait=60).at_head)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True, True, True]


def test_a_lock_in_another_database_is_no_hindrance(empty_database_url: str, database_url: str) -> None:
    with locked(database_url):
        assert migrations.upgrade(make_url(empty_database_url), wait=0).at_head


def test_waiting_holds_nothing_back(empty_database_url: str) -> None:
    """A waiting session that sat in a transaction would keep the vacuum from its work."""
    url = make_url(empty_database_url)
    with locked(empty_database_url) as holder:
        states = []

        def look(_: str) -> None:
            row = holder.execute(
                "SELECT state, backend_xmin FROM pg_stat_activity WHERE application_name = 'mistudio migrate'"
                " AND datname = current_database()"
            ).fetchone()
            states.append(row)

        with pytest.raises(ServerLockedError):
            migrations.upgrade(url, wait=0.1, on_wait=look)
    assert states == [("idle", None)]


def test_a_backup_while_the_archiver_runs(workplace: Workplace) -> None:
    url = workplace.environment.database_url or ""
    with locked(url) as holder:
        with pytest.raises(LockedError) as caught:
            create(workplace, kind="manual")
        assert f"session {holder.info.backend_pid} ({ARCHIVER}" in caught.value.message
    assert workplace.directory.all() == []
    with locked_for(url, 1):
        assert create(workplace, kind="manual", lock_wait=30).good


def test_a_backup_while_a_migration_runs(workplace: Workplace, empty_database_url: str) -> None:
    """The migration's own session holds the lock; the backup waits for it, and then sees the migrated schema."""
    place = replace(workplace, environment=replace(workplace.environment, database_url=empty_database_url))
    migrating = threading.Thread(target=migrations.upgrade, args=(make_url(empty_database_url),))
    with locked(empty_database_url) as gate:
        migrating.start()
        time.sleep(0.2)
        with pytest.raises(LockedError):
            create(place, kind="manual")
        gate.close()
    stored = create(place, kind="manual", lock_wait=60)
    migrating.join()
    assert stored.good
    stored = create(place, kind="manual")
    assert stored.manifest is not None
    assert stored.manifest.database.revision == migrations.head()


async def test_partitions_are_made_while_pg_dump_runs(workplace: Workplace, database: Database) -> None:
    """pg_dump's locks are those of a reader: neither waits for the other, and the dump is whole."""
    access = workplace.access()
    with access.session() as session:
        session.execute(
            "CREATE TABLE ballast AS SELECT n, repeat(md5(n::text), 50) AS t FROM generate_series(1, 4000) n"
        )
        tools = find_tools(server_major(session), access, workplace.environment.backup)
    process = tools.start(
        "pg_dump", ["-Fc", "-Z0"], access.owner, access.name, application=DUMP,
        streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.read(100_000)  # it writes rows by now, and waits: the pipe is full
    assert process.poll() is None
    async with database.write() as writing:
        made = await premake(writing, today=(datetime.now(UTC) + timedelta(days=400)).date())
    assert len(made) > 2
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert len(first + rest) > 6_000_000


async def test_partition_upkeep_does_not_wait_for_the_lock(workplace: Workplace, database: Database) -> None:
    with maintenance_session(workplace.access()):
        async with database.write() as writing:
            assert await premake(writing, today=(datetime.now(UTC) + timedelta(days=400)).date())
