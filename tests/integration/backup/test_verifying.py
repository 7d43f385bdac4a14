"""Proving backups: what is wrong with one makes it bad, what is wrong around it does not, and no scratch stays."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest

from mistudio_ops.domain.backup import Level, StoredBackup, Verification
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import WrongKeyError
from mistudio_ops.errors import LockedError, NothingFoundError, OpsError, PreconditionError
from mistudio_ops.operations.backup import scratch
from mistudio_ops.operations.backup.loading import LoadError, load
from mistudio_ops.operations.backup.soundness import examine
from mistudio_ops.operations.backup.verify import verify, verify_locked, verify_selected
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support import real_backups
from tests.support.real_backups import make_backup, rewrite_manifest, workplace_of

pytestmark = pytest.mark.integration
LEVELS: tuple[Level, ...] = ("hash", "read", "restore")


def outcome(workplace: Workplace, stored: StoredBackup, level: Level) -> Verification:
    """Verify, and hold the marks to what was returned."""
    done = verify(workplace, stored, level)
    marked = workplace.directory.get(stored.id)
    assert marked.marks.latest(done.level) == done
    assert marked.good is done.ok
    return done


def dump_of(workplace: Workplace, stored: StoredBackup) -> Path:
    assert stored.manifest is not None
    entry = stored.manifest.file("database")
    assert entry is not None
    return workplace.directory.path(stored.id) / entry.name


@pytest.mark.parametrize("level", LEVELS)
def test_a_good_one_is_good(workplace: Workplace, level: Level) -> None:
    stored = make_backup(workplace)
    done = outcome(workplace, stored, level)
    assert (done.ok, done.level, done.reason) == (True, level, None)
    assert workplace.directory.get(stored.id).marks.verified(level) == done.at


def damaged(content: bytes, share: float) -> bytes:
    position = min(int(len(content) * share), len(content) - 1)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "start": lambda content: damaged(content, 0.0),
    "middle": lambda content: damaged(content, 0.5),
    "end": lambda content: damaged(content, 1.0),
    "cut": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_makes_it_bad_at_every_level(workplace: Workplace, damage: str, level: Level) -> None:
    stored = make_backup(workplace)
    path = dump_of(workplace, stored)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    done = outcome(workplace, stored, level)
    assert not done.ok
    assert done.level == "hash", "the cheapest level that shows it"
    assert "database.dump.zst" in (done.reason or "")


def test_a_file_or_manifest_that_is_gone_makes_it_bad(workplace: Workplace) -> None:
    first, second = make_backup(workplace), make_backup(workplace)
    dump_of(workplace, first).unlink()
    assert "is gone" in (outcome(workplace, first, "read").reason or "")
    (workplace.directory.path(second.id) / "manifest.json").unlink()
    assert "manifest" in (outcome(workplace, second, "read").reason or "")


def test_an_edited_manifest_makes_it_bad(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    path = workplace.directory.path(stored.id) / "manifest.json"
    path.write_bytes(
        path.read_bytes().replace(b'"rows": 100', b'"rows": 101').replace(b'"kind": "manual"', b'"kind": "scheduled"')
    )
    done = outcome(workplace, stored, "restore")
    assert not done.ok
    assert "sha256" in (done.reason or "")


def test_a_manifest_edited_with_its_sha256_is_found_by_restoring(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    more = tuple(replace(one, rows=one.rows + 1) if one.name == "trainings" else one for one in stored.manifest.tables)
    stored = rewrite_manifest(workplace, stored, tables=more)
    assert outcome(workplace, stored, "read").ok
    done = outcome(workplace, stored, "restore")
    assert (done.ok, done.level) == (False, "restore")
    assert "public.trainings has 2 rows; 3 were backed up" in (done.reason or "")


def test_another_revision_is_found_by_restoring(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    stored = rewrite_manifest(workplace, stored, database=replace(stored.manifest.database, revision="9999"))
    assert "9999 was backed up" in (outcome(workplace, stored, "restore").reason or "")


def test_a_table_that_the_dump_lacks_is_found_by_reading(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    tables = (*stored.manifest.tables, replace(stored.manifest.tables[0], name="secrets"))
    done = outcome(workplace, rewrite_manifest(workplace, stored, tables=tables), "read")
    assert (done.ok, done.level) == (False, "read")
    assert "lacks public.secrets" in (done.reason or "")


def test_a_dump_that_was_bad_from_the_start_is_found_by_reading(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes that fit prove nothing about a pg_dump that was cut before it was hashed."""

    class Cut(real_backups._Dump):
        left = 60_000

        def readinto(self, buffer: bytearray, /) -> int:
            count = min(super().readinto(buffer), self.left)
            self.left -= count
            return count

    monkeypatch.setattr(real_backups, "_Dump", Cut)
    stored = make_backup(workplace)
    assert outcome(workplace, stored, "hash").ok
    done = outcome(workplace, stored, "read")
    assert (done.ok, done.level) == (False, "read")
    assert "pg_restore cannot read" in (done.reason or "")


def test_a_later_success_makes_it_good_again(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    path = dump_of(workplace, stored)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    assert not outcome(workplace, stored, "hash").ok
    path.write_bytes(sound)
    assert outcome(workplace, stored, "read").ok


def key_file(folder: Path) -> tuple[str, Path]:
    """Return a public key, and the file with its private one."""
    identity = pyrage.x25519.Identity.generate()
    path = folder / f"{identity.to_public()}.key"
    path.write_text(f"{identity}\n")
    path.chmod(0o600)
    return str(identity.to_public()), path


@pytest.mark.parametrize("level", ["read", "restore"])
def test_a_wrong_key_is_raised_and_not_held_against_it(
    database_url: str, access: DatabaseAccess, tmp_path: Path, level: Level
) -> None:
    (recipient, right), (_, wrong) = key_file(tmp_path), key_file(tmp_path)
    stored = make_backup(workplace_of(database_url, tmp_path, recipients=(recipient,)))
    for found in (wrong, None):
        place = workplace_of(database_url, tmp_path, recipients=(recipient,), identity_file=found)
        with pytest.raises(WrongKeyError):
            verify(place, stored, level)
        again = place.directory.get(stored.id)
        assert again.good
        assert again.marks.latest(level) is None
        assert outcome(place, stored, "hash").ok, "hashes need no key"
    assert outcome(workplace_of(database_url, tmp_path, identity_file=right), stored, level).ok


def test_rights_and_servers_that_are_missing_are_raised(workplace: Workplace, access: DatabaseAccess) -> None:
    stored = make_backup(workplace)
    down = replace(
        workplace, environment=replace(workplace.environment, database_url="postgresql+psycopg://x@127.0.0.1:1/x")
    )
    assert outcome(down, stored, "read").ok, "reading needs no server"
    with pytest.raises(PreconditionError, match="does not let"):
        verify(down, stored, "restore")
    assert workplace.directory.get(stored.id).good


def test_programs_of_no_fitting_version_are_raised(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    stored = rewrite_manifest(workplace, stored, database=replace(stored.manifest.database, server_major=99))
    with pytest.raises(PreconditionError, match="99"):
        verify(workplace, stored, "read")
    assert workplace.directory.get(stored.id).good


def test_a_backup_from_before_an_upgrade_is_read_by_the_newer_programs(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    stored = rewrite_manifest(workplace, stored, database=replace(stored.manifest.database, server_major=9))
    assert outcome(workplace, stored, "read").ok
    assert outcome(workplace, stored, "restore").ok


def test_an_extension_that_the_server_lacks_is_raised(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    assert stored.manifest is not None
    stored = rewrite_manifest(workplace, stored, database=replace(stored.manifest.database, extensions=("timescale9",)))
    with pytest.raises(PreconditionError, match="timescale9"):
        verify(workplace, stored, "restore")


def test_an_owner_without_rights_but_createdb_verifies_by_restoring(
    workplace: Workplace, plain_owner: DatabaseAccess, tmp_path: Path
) -> None:
    load(workplace, make_backup(workplace), plain_owner, plain_owner.name, identities=())
    login = plain_owner.owner
    url = f"postgresql+psycopg://{login.user}:{login.password}@{login.host}:{login.port}/{plain_owner.name}"
    theirs = workplace_of(url, tmp_path / "theirs")
    assert outcome(theirs, make_backup(theirs), "restore").ok
    assert databases.list_ours(plain_owner) == []


def test_selecting(workplace: Workplace) -> None:
    with pytest.raises(NothingFoundError, match="no backup"):
        verify_selected(workplace, (), "hash")
    first, second = make_backup(workplace), make_backup(workplace)
    assert [one.id for one in verify_selected(workplace, (), "hash")] == [second.id]
    assert [one.id for one in verify_selected(workplace, (), "hash", every=True)] == [first.id, second.id]
    assert [one.id for one in verify_selected(workplace, (first.id, second.id), "hash")] == [first.id, second.id]
    with pytest.raises(NothingFoundError):
        verify_selected(workplace, ("19990101",), "hash")


def test_a_bad_newest_one_does_not_hide_behind_a_good_one(workplace: Workplace) -> None:
    make_backup(workplace)
    newest = make_backup(workplace)
    dump_of(workplace, newest).write_bytes(b"")
    (done,) = verify_selected(workplace, (), "hash")
    assert (done.id, done.ok, done.error) == (newest.id, False, None)


def test_one_that_cannot_be_verified_does_not_keep_the_others_from_it(
    database_url: str, access: DatabaseAccess, tmp_path: Path
) -> None:
    make_backup(workplace_of(database_url, tmp_path, recipients=(key_file(tmp_path)[0],)))
    place = workplace_of(database_url, tmp_path)
    make_backup(place)
    locked, plain = verify_selected(place, (), "read", every=True)
    assert isinstance(locked.error, WrongKeyError)
    assert plain.ok


def test_two_at_once_refuse_or_wait(workplace: Workplace) -> None:
    stored = make_backup(workplace)
    with (workplace.directory.root / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            verify(workplace, stored, "hash")
        threading.Timer(0.3, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        assert verify(workplace, stored, "hash", lock_wait=10).ok


@pytest.mark.parametrize("error", [psycopg.OperationalError("gone"), OpsError("stopped"), KeyboardInterrupt()])
def test_the_scratch_goes_whatever_happens_in_it(
    workplace: Workplace, access: DatabaseAccess, error: BaseException
) -> None:
    stored = make_backup(workplace)
    expected = LoadError if isinstance(error, psycopg.Error) else type(error)
    names: list[str] = []

    def use_it() -> None:
        with scratch.scratch_copy(workplace, stored, access, ()) as name:
            assert databases.exists(access, name)
            names.append(name)
            raise error

    with pytest.raises(expected):
        use_it()
    assert not databases.exists(access, names[0])


def test_a_server_that_ends_our_sessions_leaves_the_backup_good(workplace: Workplace, access: DatabaseAccess) -> None:
    with access.session() as connection:
        connection.execute("CREATE TABLE much AS SELECT n, repeat('x', 100) t FROM generate_series(1, 300000) n")
    stored = make_backup(workplace)
    ended = threading.Event()

    def end_sessions() -> None:
        with access.admin_session() as connection:
            while not ended.is_set():
                for (pid,) in loading(access):
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
                    ended.set()

    thread = threading.Thread(target=end_sessions)
    thread.start()
    try:
        with pytest.raises(LoadError):
            verify_locked(workplace, stored, "restore")
    finally:
        ended.set()
        thread.join()
    assert workplace.directory.get(stored.id).good


_PROCESS = """
import sys
from mistudio_ops.cli.app import main
sys.argv = ["mistudio-ops", "backup", "verify", "--level", "restore"]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_killed_verification_leaves_no_scratch_for_long(
    workplace: Workplace, access: DatabaseAccess, number: int, code: int
) -> None:
    with access.session() as connection:
        connection.execute("CREATE TABLE much AS SELECT n, repeat('x', 200) t FROM generate_series(1, 400000) n")
    stored = make_backup(workplace)
    process = subprocess.Popen([sys.executable, "-c", _PROCESS], env=variables_of(workplace), stderr=subprocess.PIPE)
    try:
        wait_until(lambda: bool(loading(access)), "it loads")
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code, said.decode()
    if number != signal.SIGKILL:
        assert databases.list_ours(access, "verify") == []
    else:
        assert len(databases.list_ours(access, "verify")) == 1
        wait_until(lambda: not loading(access), "pg_restore died with it")
        assert outcome(workplace, stored, "restore").ok
        assert "which a killed command had left" in " ".join(workplace.reporter.notes)  # type: ignore[attr-defined]
    assert workplace.directory.get(stored.id).good


def loading(access: DatabaseAccess) -> list[tuple[object, ...]]:
    with access.admin_session() as connection:
        return connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE starts_with(datname, %s) AND application_name LIKE '%%restore'",
            (f"{access.name}_verify_",),
        ).fetchall()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def variables_of(workplace: Workplace) -> dict[str, str]:
    assert workplace.environment.database_url
    return {
        **os.environ,
        "MISTUDIO_STATE_DIR": str(workplace.environment.state_dir),
        "MISTUDIO_DATABASE_URL": workplace.environment.database_url,
        "MISTUDIO_BACKUP_DIRECTORY": str(workplace.directory.root),
    }


def test_a_scratch_that_is_incomplete_is_bad(workplace: Workplace, access: DatabaseAccess) -> None:
    """An index of a partitioned table that a partition lacks, and a question that cannot be answered."""
    with access.session() as connection:
        assert examine(connection).problems == ()
        connection.execute("CREATE INDEX incomplete ON ONLY training_metrics (loss)")
        connection.execute("ALTER TABLE trainings DROP COLUMN created_at CASCADE")
        connection.execute("ALTER TABLE models ADD CONSTRAINT late CHECK (name <> '') NOT VALID")
        connection.execute("SELECT setval('training_metrics_id_seq', 1)")
        found = examine(connection)
    assert any("incomplete" in problem for problem in found.problems)
    assert any("cannot ask trainings" in problem for problem in found.problems)
    assert any("constraint late" in remark for remark in found.remarks)
    assert any("training_metrics_id_seq is at 1" in remark for remark in found.remarks)


def test_signals_wait_for_the_drop_and_then_arrive() -> None:
    done: list[bool] = []

    def drop() -> None:
        with scratch.signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        drop()
    assert done == [True]


def test_the_command(
    workplace: Workplace, access: DatabaseAccess, admin: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    def run(*arguments: str) -> "tuple[int, dict[str, object]]":
        done = subprocess.run(
            [sys.executable, "-m", "mistudio_ops", "backup", "verify", *arguments, "--json"],
            env=variables_of(workplace), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    assert run()[0] == 10
    stored = make_backup(workplace)
    code, document = run("--level", "restore")
    assert (code, document["schema"], document["ok"]) == (0, "mistudio-ops/backup-verify/1", True)
    dump_of(workplace, stored).write_bytes(b"")
    code, document = run(stored.id[:12])
    assert (code, document["ok"]) == (12, False)
    assert document["data"]["backups"][0]["outcome"] == "bad"  # type: ignore[index]
    assert run("--all", stored.id)[0] == 2
