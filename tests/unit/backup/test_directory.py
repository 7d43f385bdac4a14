"""A directory of backups shows whole ones only."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import MANIFEST_FILE, MARKS_FILE, Marks, Verification
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.errors import LockedError, NothingFoundError, PreconditionError, UsageError
from tests.support.backups import NOON, manifest, put


@pytest.fixture
def directory(tmp_path: Path) -> BackupDirectory:
    directory = BackupDirectory(tmp_path / "backups")
    directory.prepare()
    return directory


def test_a_stored_one_is_good_and_private(directory: BackupDirectory) -> None:
    made = put(directory)
    (one,) = directory.all()
    assert one.good
    assert one == made
    assert directory.root.stat().st_mode & 0o777 == 0o700
    assert directory.path(made.id).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.path(made.id).iterdir()} == {0o600}


def test_order_is_that_of_making_whatever_the_clock_says(directory: BackupDirectory) -> None:
    future = put(directory, NOON.replace(year=2031))
    present = put(directory)
    assert [one.id for one in directory.all()] == [future.id, present.id]
    assert directory.find("latest").id == present.id
    assert directory.next_sequence() == 3


def test_finding(directory: BackupDirectory) -> None:
    first, second = put(directory), put(directory)
    assert directory.find(first.id).id == first.id
    assert directory.find(second.id[:-1] + "2").id == second.id
    with pytest.raises(UsageError, match="fits"):
        directory.find("2026")
    with pytest.raises(NothingFoundError):
        directory.find("latest-verified")
    for text in ("", "nothing", "../x", "objects"):
        with pytest.raises((NothingFoundError, UsageError)):
            directory.find(text)
    directory.record(first.id, Verification("restore", NOON, ok=True))
    assert directory.find("latest-verified").id == first.id
    directory.record(second.id, Verification("read", NOON, ok=False, reason="cut"))
    assert directory.find("latest").id == first.id


@pytest.mark.parametrize("name", [MANIFEST_FILE, "database.dump.zst"])
@pytest.mark.parametrize("harm", ["gone", "empty", "cut", "longer", "folder"])
def test_what_was_harmed_is_not_good(directory: BackupDirectory, name: str, harm: str) -> None:
    path = directory.path(put(directory).id) / name
    content = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm != "gone":
        path.write_bytes({"empty": b"", "cut": content[:-1], "longer": content + b"x"}[harm])
    (one,) = directory.all()
    assert not one.good
    assert one.problem
    with pytest.raises(NothingFoundError):
        directory.find("latest")


def test_another_backups_manifest_is_not_good(directory: BackupDirectory) -> None:
    first, second = put(directory), put(directory)
    (directory.path(first.id) / MANIFEST_FILE).write_bytes((directory.path(second.id) / MANIFEST_FILE).read_bytes())
    assert [one.good for one in directory.all()] == [False, True]


def test_an_unpublished_one_is_never_seen(directory: BackupDirectory) -> None:
    def cut_off() -> None:
        with directory.partial(manifest(1).id) as folder:
            (folder / "database.dump.zst").write_bytes(b"x")
            assert directory.all() == []
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        cut_off()
    assert list(directory.root.iterdir()) == []


def test_leftovers_of_a_kill_are_removed_by_the_next(directory: BackupDirectory) -> None:
    made = put(directory)
    (directory.root / ".partial-20261123T000000Z-00000001").mkdir()
    doomed = directory.root / ".removing-20261122T000000Z-00000001"
    doomed.mkdir()
    (doomed / MANIFEST_FILE).write_bytes(manifest(1).render())
    assert [one.id for one in directory.all()] == [made.id]
    assert len(directory.clean()) == 2
    assert [path.name for path in directory.root.iterdir()] == [made.id]


def test_garbled_marks_are_kept_and_count_as_a_pin(directory: BackupDirectory) -> None:
    made = put(directory)
    path = directory.path(made.id) / MARKS_FILE
    path.write_bytes(b"{garbled")
    assert directory.record(made.id, Verification("hash", NOON, ok=True)).marks.damaged
    assert path.read_bytes() == b"{garbled"


def test_marks_change_without_touching_the_backup(directory: BackupDirectory) -> None:
    made = put(directory)
    directory.mark(made.id, Marks(pinned=True, pin_reason="the paper's run"))
    one = directory.record(made.id, Verification("read", NOON, ok=True))
    assert one.marks.pinned
    assert one.good
    assert {path.name for path in directory.path(made.id).iterdir()} == {
        MANIFEST_FILE, MARKS_FILE, "database.dump.zst",
    }  # fmt: skip


def test_one_writer_at_a_time_and_its_lock_goes_with_it(directory: BackupDirectory) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from mistudio_ops.drivers.backup_directory import BackupDirectory\n"
        "with BackupDirectory(Path(sys.argv[1])).lock():\n  print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(directory.root)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid}.*works on these backups"), directory.lock(0.3):
            pass
        holder.kill()
        holder.wait()
    with directory.lock(5.0):
        assert (directory.root / "lock").exists()


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError, match="cannot be written"):
        BackupDirectory(tmp_path / "file" / "backups").prepare()
