"""Backups that cannot be made: whatever goes wrong, nothing half-made has a backup's name, and the next one works."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers.database_access import MAINTENANCE_LOCK, DatabaseAccess
from mistudio_ops.drivers.pg_tools import HostTools
from mistudio_ops.drivers.snapshot import LostConnectionError, maintenance_session
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import LockedError, OpsError, PreconditionError
from mistudio_ops.operations.backup.counting import counting
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.dump import DumpError
from mistudio_ops.operations.backup.room import SPARE_BYTES, DiskFullError
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import HookedReporter, connect, fill, workplace_of, write_checkpoint

pytestmark = pytest.mark.integration
#: More than pipe and buffers hold: a program that is cut off here has not written all of it yet.
ROWS = 150_000
MID_DUMP = 1 << 20
PLENTY = 1 << 40


@dataclass(frozen=True)
class WatchedTools:
    """The real programs; ``started`` collects them."""

    real: HostTools
    started: list["subprocess.Popen[bytes]"]
    place = "watched"
    shares_files = True

    @property
    def version(self) -> str:
        return self.real.version

    def start(self, *arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        process = self.real.start(*arguments, **options)
        self.started.append(process)
        return process


def watched(started: list["subprocess.Popen[bytes]"]) -> Callable[..., Any]:
    """Return what finds the real programs and lets a test see their processes."""

    def find(major: int, access: DatabaseAccess, settings: BackupSettings) -> Any:
        tools = find_tools(major, access, settings)
        assert isinstance(tools, HostTools)
        return WatchedTools(tools, started)

    return find


def hooked(database_url: str, tmp_path: Path, hook: Callable[[], None], **settings: Any) -> Workplace:
    """Return a workplace in which ``hook`` is called in the middle of the dump."""
    fill(database_url, ROWS)
    return workplace_of(database_url, tmp_path, reporter=HookedReporter(after=MID_DUMP, hook=hook), **settings)


def nothing_left(workplace: Workplace) -> None:
    """Nothing looks like a backup, no file of one is left, and no session of ours is on the server."""
    names = {path.name for path in workplace.directory.root.iterdir()}
    assert names <= {"lock", "objects", "keys"}, names
    assert not list(workplace.directory.root.rglob("*.partial*"))
    access = workplace.access()
    for _ in range(50):
        with access.session(application="test") as connection:
            ours = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'mistudio-ops%'"
            left = connection.execute(ours + " AND datname = current_database()").fetchall()
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


def works_now(workplace: Workplace) -> None:
    stored = create(workplace, kind="manual")
    assert stored.good
    assert [one.id for one in workplace.directory.all()] == [stored.id]


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_pg_dump_killed_in_the_middle(database_url: str, tmp_path: Path, name: signal.Signals) -> None:
    started: list[subprocess.Popen[bytes]] = []
    workplace = hooked(database_url, tmp_path, lambda: started[0].send_signal(name))
    with pytest.raises(DumpError, match=rf"pg_dump (was killed by signal {int(name)}|exited with)"):
        create(workplace, kind="manual", find=watched(started))
    nothing_left(workplace)
    works_now(workplace)


@pytest.mark.parametrize("application", ["mistudio-ops backup", "mistudio-ops backup dump"])
def test_a_session_ended_by_the_server(database_url: str, tmp_path: Path, application: str) -> None:
    def end() -> None:
        with connect(database_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s AND datname = current_database()", (application,),
            )  # fmt: skip

    workplace = hooked(database_url, tmp_path, end)
    with pytest.raises(OpsError, match=r"terminating connection|closed the connection") as raised:
        create(workplace, kind="manual")
    assert raised.value.code in {"lost_connection", "dump_failed"}
    nothing_left(workplace)
    works_now(workplace)


@contextmanager
def counting_that_waits(database_url: str, workplace: Workplace) -> Iterator[tuple["Future[Any]", Any]]:
    """Count while another session keeps the table ``filling`` locked; give the result to come and that session."""
    fill(database_url, 10)
    with (
        maintenance_session(workplace.access()) as session,
        psycopg.connect(database_url.replace("+psycopg", "")) as other,
    ):
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = session.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        other.execute("LOCK TABLE filling IN ACCESS EXCLUSIVE MODE")
        with counting(workplace.access(), row[0]) as counts:
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE %s"
            while not other.execute(waiting, ("%backup counts",)).fetchone():
                time.sleep(0.01)
            yield counts, other


def test_counting_ended_by_the_server(database_url: str, tmp_path: Path) -> None:
    def end_counting() -> None:
        with counting_that_waits(database_url, workplace_of(database_url, tmp_path)) as (counts, other):
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%backup counts'"
            )
            counts.result(20)

    with pytest.raises(LostConnectionError, match="terminating connection"):
        end_counting()


def test_counting_ends_when_the_dump_fails(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    began = time.monotonic()
    with pytest.raises(DumpError), counting_that_waits(database_url, workplace):
        raise DumpError("as pg_dump might")
    assert time.monotonic() - began < 10


def test_a_database_that_goes_away(database_url: str, tmp_path: Path, postgres_admin: str) -> None:
    name = database_url.rpartition("/")[2]

    def drop() -> None:
        with psycopg.connect(postgres_admin, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    workplace = hooked(database_url, tmp_path, drop)
    with pytest.raises(OpsError):
        create(workplace, kind="manual")
    nothing_left(workplace)


def test_no_database_and_no_server(database_url: str, tmp_path: Path) -> None:
    for url in (f"{database_url}_none", "postgresql+psycopg://u:p@127.0.0.1:1/d"):
        workplace = workplace_of(url, tmp_path)
        with pytest.raises(PreconditionError, match="does not let"):
            create(workplace, kind="manual")
        assert workplace.directory.all() == []


def test_programs_of_another_major(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)

    def find(major: int, access: DatabaseAccess, settings: BackupSettings) -> Any:
        return find_tools(major, access, settings, finders=[lambda *_: "/opt/pg/bin has 9.6"])

    with pytest.raises(PreconditionError, match=r"/opt/pg/bin has 9\.6") as raised:
        create(workplace, kind="manual", find=find)
    assert "postgresql-client-" in (raised.value.hint or "")
    nothing_left(workplace)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo the disk of the server fails >&2; exit 1", "exited with 1: the disk of the server fails"),
        ("echo PGDMP; exit 3", "exited with 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("head -c 3000000 /dev/zero; exit 1", "exited with 1"),
    ],
)
def test_pg_dump_that_fails(database_url: str, tmp_path: Path, script: str, said: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "pg_dump").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "pg_dump").chmod(0o755)
    workplace = workplace_of(database_url, tmp_path)
    with pytest.raises(DumpError, match=said):
        create(workplace, kind="manual", find=lambda *_: HostTools(folder, "15.0"))
    nothing_left(workplace)


def test_pg_dump_that_is_not_there(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    with pytest.raises(DumpError, match=r"pg_dump in .*gone cannot be started: No such file"):
        create(workplace, kind="manual", find=lambda *_: HostTools(tmp_path / "gone", "15.0"))
    nothing_left(workplace)


def test_children_of_pg_dump_die_with_it(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    note = tmp_path / "child"
    (folder / "pg_dump").write_text(f"#!/bin/sh\nsleep 300 >/dev/null & echo $! > {note}\nexit 1\n")
    (folder / "pg_dump").chmod(0o755)
    with pytest.raises(DumpError):
        create(workplace_of(database_url, tmp_path), kind="manual", find=lambda *_: HostTools(folder, "15.0"))
    state = Path(f"/proc/{note.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_table_that_somebody_else_owns(database_url: str, tmp_path: Path, postgres_admin: str) -> None:
    """A superuser made it by hand: it is neither left out unsaid nor an unexpected error."""
    role, url = f"owner_{os.getpid()}", make_url(database_url)
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")  # type: ignore[call-overload]
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")  # type: ignore[call-overload]
        admin.execute("CREATE TABLE scratch (x int)")
    try:
        theirs = url.set(username=role, password=role).render_as_string(hide_password=False)
        workplace = workplace_of(theirs, tmp_path)
        with pytest.raises(PreconditionError, match=f"{role} may not read all of the database: scratch of ") as raised:
            create(workplace, kind="manual")
        assert f"ALTER TABLE scratch OWNER TO {role}" in (raised.value.hint or "")
        nothing_left(workplace)
    finally:
        with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")  # type: ignore[call-overload]


def test_another_session_holds_the_lock(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    with connect(database_url) as other:
        other.execute("SET application_name = 'the archiver'")
        other.execute("SELECT pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
        with pytest.raises(LockedError, match=rf"session {other.info.backend_pid} \(the archiver"):
            create(workplace, kind="manual")
        nothing_left(workplace)
        threading.Timer(0.5, other.execute, ["SELECT pg_advisory_unlock_all()"]).start()
        began = time.monotonic()
        assert create(workplace, kind="manual", lock_wait=20).good
        assert 0.4 < time.monotonic() - began < 15
    with connect(database_url) as other:
        row = other.execute("SELECT pg_try_advisory_lock(%s)", (MAINTENANCE_LOCK,)).fetchone()
        assert row == (True,), "it is released with the session"


def test_two_at_once_one_waits_and_one_refuses(database_url: str, tmp_path: Path) -> None:
    results: list[Any] = []

    def second(wait: float) -> None:
        try:
            results.append(create(workplace_of(database_url, tmp_path), kind="manual", lock_wait=wait))
        except LockedError as error:
            results.append(error)

    waiting = threading.Thread(target=second, args=(30,))

    def meanwhile() -> None:
        second(0)
        waiting.start()

    workplace = hooked(database_url, tmp_path, meanwhile)
    first = create(workplace, kind="manual")
    waiting.join(30)
    refused, waited = results
    assert isinstance(refused, LockedError)
    assert [one.id for one in workplace.directory.all()] == [first.id, waited.id]
    assert all(one.good for one in workplace.directory.all())


def test_a_table_that_stays_locked(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudio_ops.drivers.snapshot.TABLE_LOCK_SECONDS", 0.3)
    fill(database_url, 10)
    workplace = workplace_of(database_url, tmp_path)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE filling IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LockedError, match=rf"filling by session {other.info.backend_pid}"):
            create(workplace, kind="manual")
    nothing_left(workplace)
    works_now(workplace)


def test_no_room_is_said_before_anything_is_written(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    with pytest.raises(PreconditionError, match=r"a backup needs about 6[4-9] MiB .* and 64 MiB are free"):
        create(workplace, kind="manual", free_bytes=lambda _: SPARE_BYTES)
    nothing_left(workplace)


def limited(size: int) -> Callable[[], None]:
    """Return what lets no file of a process become larger than ``size``."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 3_000_000])
def test_no_file_may_become_larger(database_url: str, tmp_path: Path, size: int) -> None:
    fill(database_url, ROWS)
    workplace = workplace_of(database_url, tmp_path)
    workplace.directory.prepare()
    done = ops(workplace, database_url, preexec_fn=limited(size))
    document = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert document["error"]["code"] == "disk_full", document
    nothing_left(workplace)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of ``size`` bytes; skip where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", [64 << 10, 1 << 20, 4 << 20])
def test_the_disk_becomes_full_and_earlier_backups_stay(database_url: str, tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        workplace = workplace_of(database_url, tmp_path, directory=disk)
        first = create(workplace, kind="manual", free_bytes=lambda _: PLENTY)
        assert first.good
        fill(database_url, ROWS)
        write_checkpoint(tmp_path / "data", "tr_a", 1, os.urandom(50_000))
        with pytest.raises(DiskFullError, match="No space left"):
            create(workplace, kind="manual", include=("checkpoints",), free_bytes=lambda _: PLENTY)
        assert [one.id for one in workplace.directory.all() if one.good] == [first.id]
        assert {path.name for path in disk.glob(".*")} == set()


def test_a_directory_that_cannot_be_one(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("a file lies there")
    with pytest.raises(PreconditionError, match=r"the backup directory .* cannot be written") as raised:
        create(workplace_of(database_url, tmp_path), kind="manual")
    assert "backup.directory" in (raised.value.hint or "")
    with pytest.raises(PreconditionError, match="cannot be written"):
        create(workplace_of(database_url, tmp_path, directory=Path("/proc/backups")), kind="manual")


def ops(workplace: Workplace, database_url: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run ``mistudio-ops backup --json`` as a command of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mistudio_ops", "backup", "--json"],
        env=variables(workplace, database_url), cwd=workplace.directory.root.parent, capture_output=True, text=True,
        timeout=60, check=False, **options,
    )  # fmt: skip


def variables(workplace: Workplace, database_url: str) -> dict[str, str]:
    """Return the variables that configure the same environment."""
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "MISTUDIO_STATE_DIR": str(workplace.environment.state_dir),
        "MISTUDIO_DATABASE_URL": database_url,
        "MISTUDIO_BACKUP_DIRECTORY": str(workplace.directory.root),
    }


@pytest.mark.parametrize(("name", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_terminated_in_the_middle(database_url: str, tmp_path: Path, name: signal.Signals, code: int) -> None:
    fill(database_url, 4 * ROWS)
    workplace = workplace_of(database_url, tmp_path)
    workplace.directory.prepare()
    process = subprocess.Popen(
        [sys.executable, "-m", "mistudio_ops", "backup", "--plain"],
        env=variables(workplace, database_url), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    root = workplace.directory.root
    while not any(path.stat().st_size for path in root.glob(".partial-*/database*")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(name)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    nothing_left(workplace)


def test_leftovers_of_a_killed_run_are_removed_and_named(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    workplace.directory.prepare()
    for name in (".partial-20260101T000000Z-aaaaaaaa", ".removing-20260101T000000Z-bbbbbbbb"):
        (workplace.directory.root / name).mkdir()
        (workplace.directory.root / name / "manifest.json").write_text("{}")
    works_now(workplace)
    assert any(".partial-20260101T000000Z-aaaaaaaa" in note for note in workplace.reporter.notes)  # type: ignore[attr-defined]


def test_sessions_of_a_killed_run_are_ended(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    access = workplace.access()
    stale = access.owner.connect(access.name, "mistudio-ops backup dump")
    other = access.owner.connect(access.name, "somebody else")
    works_now(workplace)
    with pytest.raises(psycopg.OperationalError):
        stale.execute("SELECT 1")
    assert other.execute("SELECT 1").fetchone() == (1,)
    stale.close()
    other.close()
