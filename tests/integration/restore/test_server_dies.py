"""PostgreSQL is killed, or its disk becomes full, while a backup is made, proven or restored: nothing good is lost."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from mistudio_ops.errors import OpsError
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.verify import verify
from mistudio_ops.operations.restore.afterwards import abort, status
from mistudio_ops.operations.restore.restore import restore, resume
from mistudio_ops.presentation.recording import RecordingReporter
from mistudio_server.db import migrations
from tests.support.backup_workplace import workplace_of
from tests.support.restores import UNITS, Restorable, restorable
from tests.support.servers import TestServers

pytestmark = pytest.mark.integration

OLD, NEW = [1, 2, 3, 4, 5], [1, 2, 3]


class OwnServer(TestServers):
    """A PostgreSQL that a test may kill."""

    def kill(self) -> None:
        """Send SIGKILL to the postmaster, and wait until its children noticed."""
        os.kill(self.processes[0].pid, signal.SIGKILL)
        self.processes[0].wait()
        deadline = time.monotonic() + 20
        while self._answers() or self._has_children():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def revive(self) -> None:
        """Start it again on the same data."""
        dead = self.processes.pop(0)
        assert isinstance(dead.args, list)
        self._spawn(dead.args, self.root / "run")
        self.processes.insert(0, self.processes.pop())
        self._wait()

    def come_back(self) -> None:
        """Wait until it has recovered by itself; start it where it gave up."""
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline
            if self.processes[0].poll() is not None:
                self.revive()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.postgres_url.replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _has_children(self) -> bool:
        done = subprocess.run(["pgrep", "-f", f"postgres.*{self.root}"], capture_output=True, check=False)
        return done.returncode == 0


class Killer(RecordingReporter):
    """Kills the server when a step begins whose title starts so."""

    def __init__(self, server: OwnServer, title: str) -> None:
        super().__init__()
        self._server, self._title, self.struck = server, title, False

    def step(self, title: str, *, total: float | None = None):  # type: ignore[no-untyped-def]
        """Kill, then go on as if nothing was known."""
        if title.startswith(self._title) and not self.struck:
            self.struck = True
            self._server.kill()
        return super().step(title, total=total)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    server = OwnServer(durable=True)
    server.start()
    yield server
    server.stop()


def database_on(server: TestServers, name: str) -> str:
    with psycopg.connect(server.postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    url = make_url(server.postgres_url).set(database=name)
    migrations.upgrade(url)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def lab(server: OwnServer, tmp_path: Path, request: pytest.FixtureRequest) -> Restorable:
    url = database_on(server, f"lab_{abs(hash(request.node.name)) % 10**8}")
    return restorable(workplace_of(url, tmp_path), url)


@pytest.mark.parametrize("title", ["dumping", "verify"])
def test_killed_while_a_backup_is_made(lab: Restorable, server: OwnServer, title: str) -> None:
    killer = Killer(server, title)
    before = [one.id for one in lab.workplace.directory.all()]
    try:
        create(replace(lab.workplace, reporter=killer), kind="manual")
    except OpsError:
        failed = True
    else:
        failed = False
    assert killer.struck
    assert failed == (title == "dumping"), "what was dumped already is a backup, whatever becomes of the server"
    server.revive()
    assert before[0] in [one.id for one in lab.workplace.directory.all() if one.good]
    made = create(lab.workplace, kind="manual")
    assert verify(lab.workplace, made, "restore").ok
    assert not [path for path in lab.workplace.directory.root.iterdir() if path.name.startswith(".")]


def test_killed_while_a_backup_is_proven(lab: Restorable, server: OwnServer) -> None:
    killer = Killer(server, "load")
    with pytest.raises(OpsError):
        verify(replace(lab.workplace, reporter=killer), lab.stored, "restore")
    assert killer.struck
    server.revive()
    assert lab.workplace.directory.get(lab.stored.id).good, "the server's death says nothing about the backup"
    assert verify(lab.workplace, lab.stored, "restore").ok
    assert lab.names() == []


@pytest.mark.parametrize(
    ("title", "way"),
    [
        ("make the database", "resume"),
        ("load", "abort"),
        ("gather statistics", "resume"),
        ("compare", "abort"),
        ("bring it to", "resume"),
        ("stop what writes", "abort"),
        ("give it the name", "resume"),
        ("give it the name", "abort"),
    ],
)
def test_killed_while_a_backup_is_restored(lab: Restorable, server: OwnServer, title: str, way: str) -> None:
    killer = Killer(server, title)
    with pytest.raises(OpsError):
        restore(replace(lab.workplace, reporter=killer), lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert killer.struck
    server.revive()
    assert lab.rows() == OLD
    assert lab.workplace.directory.get(lab.stored.id).good
    if status(lab.workplace, lab=lab.lab).interrupted is not None:
        (resume if way == "resume" else abort)(lab.workplace, lab=lab.lab)
        assert lab.rows() == (NEW if way == "resume" else OLD)
    assert "restore" not in lab.ours()


def test_its_disk_becomes_full_while_a_backup_is_restored(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0755", "none", str(disk)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    root = disk / "s"
    root.mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.owner() == "root":
            folder.chmod(folder.stat().st_mode | 0o005)
    server = OwnServer(root=root)
    try:
        server.start()
        url = database_on(server, "lab")
        lab = restorable(workplace_of(url, tmp_path), url)
        with lab.access.session() as connection:
            connection.execute(
                "CREATE TABLE filling AS SELECT n, repeat('x', 900) AS text FROM generate_series(1, 30000) n"
            )
            for _ in range(2):  # so that there is log to write to: without that the server itself would give up
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")
        stored = create(lab.workplace, kind="manual")
        with (disk / "ballast").open("wb") as ballast:
            ballast.write(bytes(shutil.disk_usage(disk).free - (24 << 20)))
        with pytest.raises(OpsError, match="No space left"):
            restore(lab.workplace, stored.id, lab.confirmed(skip_safety=True), lab=lab.lab)
        assert lab.workplace.directory.get(stored.id).good, "a full disk says nothing about the backup"
        (disk / "ballast").unlink()
        server.come_back()
        assert lab.rows() == OLD
        if status(lab.workplace, lab=lab.lab).interrupted is not None:
            abort(lab.workplace, lab=lab.lab)
        assert (lab.rows(), lab.ours()) == (OLD, [])
        assert lab.fake.running == set(UNITS)
    finally:
        server.stop()
        subprocess.run(["umount", "-l", str(disk)], check=False)
