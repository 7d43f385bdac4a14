"""Loading a backup: into the hands of an owner without rights, through every way, and what goes wrong on it."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from psycopg import sql

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.anonymous_file import NoRoomError, anonymous_file
from mistudio_ops.drivers.archive_file import DamagedFileError
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import WrongKeyError
from mistudio_ops.drivers.pg_tools import PgTools
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.backup import loading
from mistudio_ops.operations.backup.loading import LoadError, UnusableBackupError, compare, load
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter
from tests.support.real_backups import make_backup, rewrite_manifest, rows_of, tools_for, workplace_of

pytestmark = pytest.mark.integration
Target = tuple[DatabaseAccess, str]


@pytest.fixture
def target(access: DatabaseAccess) -> Iterator[Target]:
    """An empty database on the live one's server."""
    name = f"{access.name}_target"
    with access.admin_session() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield access, name
    databases.drop_database(access, name)


def differences(stored: StoredBackup, target: Target) -> list[str]:
    assert stored.manifest is not None
    with target[0].session(target[1]) as connection:
        return compare(stored.manifest, connection)


def file_of(workplace: Workplace, stored: StoredBackup) -> Path:
    assert stored.manifest is not None
    entry = stored.manifest.file("database")
    assert entry is not None
    return workplace.directory.path(stored.id) / entry.name


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_row_comes_back(workplace: Workplace, target: Target, jobs: int) -> None:
    stored = make_backup(workplace)
    load(workplace, stored, *target, jobs=jobs, identities=())
    assert differences(stored, target) == []
    with target[0].session(target[1]) as connection:
        row = connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'trainings'").fetchone()
        assert row == (2,), "statistics were gathered"
    steps = [title for title, word in workplace.reporter.steps if word == "ok"]  # type: ignore[attr-defined]
    assert steps == [*(["unpack the backup"] if jobs > 1 else []), "load the database", "gather statistics"]


def test_an_owner_without_rights_gets_everything(workplace: Workplace, plain_owner: DatabaseAccess) -> None:
    stored = make_backup(workplace)
    load(workplace, stored, plain_owner, plain_owner.name, identities=())
    assert differences(stored, (plain_owner, plain_owner.name)) == []
    with plain_owner.session() as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert owners == [(plain_owner.owner.user,)]


def test_extensions_of_the_admins_do_not_stop_the_owner(
    workplace: Workplace, access: DatabaseAccess, plain_owner: DatabaseAccess
) -> None:
    with access.session() as connection:
        connection.execute("CREATE EXTENSION pageinspect")
    stored = make_backup(workplace)
    assert stored.manifest is not None
    assert stored.manifest.database.extensions == ("pageinspect",)
    both, name = replace(plain_owner, admin=access.admin), f"{plain_owner.name}_x"
    databases.create_database(both, name, stored.manifest.database)
    load(workplace, stored, both, name, identities=())
    assert differences(stored, (both, name)) == []


def test_an_encrypted_one_needs_its_key(
    database_url: str, access: DatabaseAccess, target: Target, tmp_path: Path
) -> None:
    place = workplace_of(database_url, tmp_path, {"MISTUDIO_BACKUP_PASSPHRASE": "right"})
    stored = make_backup(place)
    assert file_of(place, stored).suffix == ".age"
    with pytest.raises(WrongKeyError):
        load(place, stored, *target, identities=(pyrage.x25519.Identity.generate(),))
    databases.drop_database(*target)
    with access.admin_session() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(target[1])))
    load(place, stored, *target, identities=place.identities(stored, place.keys()))
    assert differences(stored, target) == []


def flip(content: bytes, share: float) -> bytes:
    position = min(int(len(content) * share), len(content) - 1)
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit at the start": lambda content: flip(content, 0.001),
    "a bit in the middle": lambda content: flip(content, 0.5),
    "a bit at the end": lambda content: flip(content, 1.0),
    "cut in half": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "empty": lambda _: b"",
    "something else": lambda content: os.urandom(len(content)),
}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_not_what_pg_restore_made_of_it(
    workplace: Workplace, target: Target, damage: str, jobs: int
) -> None:
    stored = make_backup(workplace)
    path = file_of(workplace, stored)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DamagedFileError, match=r"database\.dump\.zst"):
        load(workplace, stored, *target, jobs=jobs, identities=())


def test_a_missing_role_is_named_with_what_to_type(
    workplace: Workplace, access: DatabaseAccess, target: Target
) -> None:
    role = f"{access.name}_reader"
    with access.session() as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        connection.execute("ALTER TABLE models ENABLE ROW LEVEL SECURITY")
        connection.execute(sql.SQL("CREATE POLICY p ON models TO {}").format(sql.Identifier(role)))
        stored = make_backup(workplace)
        connection.execute("DROP POLICY p ON models")
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    with pytest.raises(LoadError) as caught:
        load(workplace, stored, *target, identities=())
    assert f'CREATE ROLE "{role}";' in (caught.value.hint or "")


def test_a_target_that_is_not_empty_is_refused(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    load(workplace, stored, *target, identities=())
    with pytest.raises(UnusableBackupError, match="already exists"):
        load(workplace, stored, *target, identities=())


def wait_for_loading(access: DatabaseAccess, name: str) -> int:
    """Return the pid of the backend that loads, once it holds still behind our lock."""
    deadline = time.monotonic() + 20
    with access.admin_session() as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%%restore%%'", (name,)
            ).fetchone()
            if row:
                return int(row[0])
            time.sleep(0.01)
    raise AssertionError("nobody loads")


class Watched:
    """Client programs that tell which processes they started."""

    shares_files = True

    def __init__(self, tools: PgTools) -> None:
        self._tools = tools
        self.version, self.place = tools.version, tools.place
        self.started: list[Any] = []

    def start(self, *arguments: Any, **options: Any) -> Any:
        self.started.append(self._tools.start(*arguments, **options))
        return self.started[-1]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("victim", ["pg_restore", "backend"])
def test_a_kill_while_loading_says_nothing_about_the_backup(
    workplace: Workplace, access: DatabaseAccess, target: Target, victim: str, jobs: int
) -> None:
    with access.session() as connection:  # enough rows to be in the middle of
        connection.execute("CREATE TABLE much AS SELECT n, repeat('x', 200) t FROM generate_series(1, 300000) n")
    stored = make_backup(workplace)
    tools = Watched(tools_for(target[0]))
    killed = threading.Event()

    def kill() -> None:
        pid = wait_for_loading(*target)
        if victim == "backend":
            with access.admin_session() as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        else:
            os.kill(tools.started[-1].pid, signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(LoadError):
        load(workplace, stored, *target, jobs=jobs, identities=(), tools=tools)
    killer.join()
    assert killed.is_set()
    assert all(process.returncode is not None for process in tools.started)
    with pytest.raises(ProcessLookupError):  # no worker of its group is left
        os.killpg(tools.started[-1].pid, 0)


def test_being_interrupted_kills_pg_restore(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    tools = Watched(tools_for(target[0]))

    class StopError(Exception):
        pass

    class Impatient(RecordingReporter):
        def step(self, title: str, *, total: float | None = None) -> Any:
            step = super().step(title, total=total)

            class Entered:
                def __enter__(self) -> Any:
                    entered = step.__enter__()
                    entered.advance = self.advance
                    return entered

                def advance(self, _: float = 1.0) -> None:
                    raise StopError

                def __exit__(self, *raised: object) -> Any:
                    return step.__exit__(*raised)

            return Entered()

    with pytest.raises(StopError):
        load(replace(workplace, reporter=Impatient()), stored, *target, identities=(), tools=tools)
    assert tools.started[-1].returncode is not None


def test_a_server_that_is_older_or_gone_is_refused(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    newer = replace(
        stored, manifest=replace(stored.manifest, database=replace(stored.manifest.database, server_major=99))
    )
    with pytest.raises(PreconditionError, match="the server is older"):
        load(workplace, newer, *target, identities=())
    gone = replace(target[0], admin=replace(target[0].admin, port=1))
    with pytest.raises(PreconditionError, match="does not let"):
        load(workplace, stored, gone, target[1], identities=())


def test_without_room_it_streams(workplace: Workplace, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = make_backup(workplace)
    monkeypatch.setattr("mistudio_ops.drivers.anonymous_file.SPARE_BYTES", 1 << 60)
    load(workplace, stored, *target, jobs=2, identities=())
    assert differences(stored, target) == []
    assert "with one connection" in workplace.reporter.notes[0]  # type: ignore[attr-defined]


def test_a_disk_that_fills_while_unpacking_streams(
    workplace: Workplace, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_backup(workplace)
    real = loading.Workplace.read
    calls = []

    def read(self: Workplace, stored: StoredBackup, role: Any, identities: Any, sink: Any, **options: Any) -> None:
        calls.append(role)
        if len(calls) == 1:
            sink.write(b"PGDMP")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, stored, role, identities, sink, **options)

    monkeypatch.setattr(Workplace, "read", read)
    load(workplace, stored, *target, jobs=2, identities=())
    assert calls == ["database", "database"]
    assert differences(stored, target) == []


def test_the_unpacked_file_has_no_name(tmp_path: Path) -> None:
    with anonymous_file([tmp_path], 10) as file:
        file.fill(lambda sink: sink.write(b"secret"))
        assert Path(f"/proc/self/fd/{file.descriptor}").read_bytes() == b"secret"
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(NoRoomError, match="left of the"), anonymous_file([tmp_path / "nowhere", tmp_path], 1 << 62):
        pass


def test_what_differs_is_named(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    load(workplace, stored, *target, identities=())
    with target[0].session(target[1]) as connection:
        connection.execute("DELETE FROM feature_activations WHERE id = (SELECT min(id) FROM feature_activations)")
        connection.execute("UPDATE alembic_version SET version_num = 'zzzz'")
        connection.execute("DROP TABLE api_tokens")
        connection.execute("CREATE TABLE extra ()")
        (partition,) = connection.execute(
            "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'training_metrics'::regclass"
        ).fetchone() or ("",)
        connection.execute(
            sql.SQL("ALTER TABLE training_metrics DETACH PARTITION {}").format(sql.Identifier(partition))
        )
    assert differences(stored, target) == [
        f"its revision is zzzz; {stored.manifest.database.revision} was backed up",  # type: ignore[union-attr]
        "table public.api_tokens is missing",
        "public.feature_activations has 5 rows; 6 were backed up",
        f"public.{partition} belongs to no table, not to training_metrics",
        "table public.extra was not backed up",
    ]


def test_passwords_are_on_no_command_line(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    tools = Watched(tools_for(target[0]))
    load(workplace, stored, *target, identities=(), tools=tools)
    password = target[0].owner.password
    assert password
    assert password not in " ".join(map(str, tools.started[-1].args))


def test_a_manifest_that_was_edited_with_its_sha256_shows_in_the_counts(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    rows = rows_of(workplace.access())
    edited = rewrite_manifest(workplace, stored, tables=tuple(replace(one, rows=one.rows + 1) for one in rows))
    assert edited.good
    load(workplace, edited, *target, identities=())
    assert len(differences(edited, target)) == len(rows)


def test_connections_of_psycopg_are_closed(workplace: Workplace, target: Target) -> None:
    stored = make_backup(workplace)
    load(workplace, stored, *target, identities=())
    with psycopg.connect(
        host=target[0].admin.host, port=target[0].admin.port, user=target[0].admin.user,
        password=target[0].admin.password, dbname="postgres",
    ) as connection:  # fmt: skip
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (target[1],)).fetchone()
    assert row == (0,)
