"""Copies in another folder: whole or not there, nothing sent twice, nothing damaged brought back."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import Marks, Verification
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.destinations import DestinationError, UnreachableError
from mistudio_ops.drivers.destinations.folder import Folder
from mistudio_ops.errors import (
    LockedError,
    NothingFoundError,
    OpsError,
    PreconditionError,
    UsageError,
    VerificationError,
)
from mistudio_ops.operations.backup.copy_out import CopyOut
from mistudio_ops.operations.backup.prune_remote import prune_copies, prune_remote
from mistudio_ops.operations.backup.pull import pull
from mistudio_ops.operations.backup.push import push, push_locked
from mistudio_ops.operations.backup.remote import remote_backups
from mistudio_ops.operations.backup.transfer import Transfer
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.plain_backups import CREATED, HASTY, content_of, make_backup, reporter_of, workplace_at
from tests.support.small_disk import make_read_only, mounted

CHECKPOINTS = {"tr_1/step-10/weights.safetensors": os.urandom(30_000), "tr_1/step-10/state.json": b"{}"}
PASSPHRASE = {"MISTUDIO_BACKUP_PASSPHRASE": "correct horse"}


@pytest.fixture
def here(tmp_path: Path) -> Workplace:
    (tmp_path / "here").mkdir()
    return workplace_at(tmp_path / "here")


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    return str(tmp_path / "elsewhere")


def fresh(tmp_path: Path, environ: dict[str, str] | None = None, name: str = "local") -> Workplace:
    """A machine that lost everything."""
    (tmp_path / "fresh").mkdir(exist_ok=True)
    return workplace_at(tmp_path / "fresh", environ, name=name)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("scheme", "environ"), [("", {}), ("file://", {}), ("", PASSPHRASE)], ids=["plain", "URL", "encrypted"]
)
def test_a_machine_that_lost_everything_gets_its_backup_back(
    tmp_path: Path, elsewhere: str, environ: dict[str, str], scheme: str
) -> None:
    (tmp_path / "here").mkdir()
    here = workplace_at(tmp_path / "here", environ)
    make_backup(here, b"older")
    stored = make_backup(here, b"newest", checkpoints=CHECKPOINTS, created=CREATED + timedelta(days=1))
    report = push(here, None, [scheme + elsewhere])
    assert [one.outcome for one in report.pushed] == ["copied", "copied"]
    shutil.rmtree(tmp_path / "here")

    new = fresh(tmp_path, environ)
    pulled = pull(new, "latest", scheme + elsewhere)
    assert (pulled.id, pulled.outcome, pulled.objects) == (stored.id, "brought", 2)
    found = new.directory.get(stored.id)
    assert found.good
    assert found.marks.verified("hash")
    assert content_of(new, found) == b"newest"
    assert pull(new, stored.id, elsewhere).outcome == "already here"
    # What is made next counts as newer, and with the same passphrase shares the checkpoints that came.
    again = make_backup(new, b"next", checkpoints=CHECKPOINTS, created=CREATED + timedelta(days=2))
    assert again.sequence > stored.sequence
    assert len(list((new.directory.root / "objects").glob("*/??/*"))) == 2


def test_latest_is_not_the_copy_of_what_was_broken(here: Workplace, tmp_path: Path, elsewhere: str) -> None:
    whole = make_backup(here)
    broken = make_backup(here, b"broken", kind="pre-restore", created=CREATED + timedelta(hours=1))
    push(here, None, [elsewhere])
    assert pull(fresh(tmp_path), "latest", elsewhere).id == whole.id
    shutil.rmtree(Path(elsewhere) / whole.id)
    assert pull(fresh(tmp_path), "latest", elsewhere).id == broken.id


def test_a_copy_can_be_used_as_a_backup_directory(here: Workplace, elsewhere: str) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    push(here, "latest", [elsewhere])
    (found,) = BackupDirectory(Path(elsewhere)).all()
    assert found.good
    assert found.manifest == stored.manifest


def test_nothing_is_sent_twice_and_checkpoints_are_shared(here: Workplace, elsewhere: str) -> None:
    make_backup(here, checkpoints=CHECKPOINTS)
    first = push(here, "latest", [elsewhere]).pushed[0]
    assert (first.outcome, first.objects) == ("copied", 2)
    before = {path: path.stat().st_mtime_ns for path in Path(elsewhere).rglob("*") if path.is_file()}
    again = push(here, "latest", [elsewhere]).pushed[0]
    assert (again.outcome, again.files, again.objects, again.bytes) == ("already there", 0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in Path(elsewhere).rglob("*") if path.is_file()} == before
    make_backup(here, b"other", checkpoints=CHECKPOINTS, created=CREATED + timedelta(days=1))
    second = push(here, "latest", [elsewhere]).pushed[0]
    assert (second.outcome, second.objects) == ("copied", 0)


def test_pins_travel_and_the_proofs_of_the_content(here: Workplace, elsewhere: str) -> None:
    stored = make_backup(here)
    here.directory.record(stored.id, Verification("restore", CREATED, ok=True))
    push(here, stored.id, [elsewhere])
    (there,) = remote_backups(here, elsewhere)
    assert not there.marks.pinned
    assert there.marks.verified("restore") == CREATED
    marks = here.directory.get(stored.id).marks
    here.directory.mark(stored.id, replace(marks, pinned=True, pin_reason="the paper"))
    assert push(here, stored.id, [elsewhere]).pushed[0].outcome == "already there"
    (there,) = remote_backups(here, elsewhere)
    assert (there.marks.pinned, there.marks.pin_reason) == (True, "the paper")
    assert there.marks.verified("hash")
    here.directory.remove(stored.id)
    pulled = pull(here, "latest", elsewhere)
    assert pulled.restore_verified
    assert here.directory.get(stored.id).marks.pinned


class CutError(Exception):
    pass


class Faulty(Folder):
    """Its power fails at the given operation that changes something, or its connection is cut there."""

    def __init__(self, root: Path, fail_at: int, error: Exception) -> None:
        super().__init__(root)
        self.left, self.error = fail_at, error

    def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
        content = b"".join(chunks)
        if self.left == 0:
            # What a kill leaves: half a file under its temporary name.
            partial = (self.root / name).with_name(f".partial-{Path(name).name}")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content[: len(content) // 2])
            raise self.error
        self.left -= 1
        super().write(name, iter((content,)), size)


def _push_to(workplace: Workplace, stored_id: str, destination: Folder) -> None:
    stored = workplace.directory.get(stored_id)
    assert stored.manifest is not None
    transfer = Transfer(destination, HASTY)
    CopyOut(workplace.directory, stored, stored.manifest, transfer, workplace.reporter, workplace.now).run()


def test_killed_at_any_write_nothing_looks_like_a_backup_and_the_next_push_completes_it(
    here: Workplace, tmp_path: Path
) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    for writes in range(8):  # four files, two objects, the marks, and the manifest last
        root = tmp_path / f"at-{writes}"
        with pytest.raises(CutError):
            _push_to(here, stored.id, Faulty(root, writes, CutError()))
        assert remote_backups(here, str(root)) == []
        report = push_locked(here, stored, str(root))
        assert report.files + report.objects == max(0, 6 - writes)
        assert [one.good for one in remote_backups(here, str(root))] == [True]
        assert not list(root.rglob(".partial-*"))
    _push_to(here, stored.id, Faulty(tmp_path / "whole", 8, CutError()))
    assert remote_backups(here, str(tmp_path / "whole"))[0].good


def test_a_cut_connection_is_tried_again(here: Workplace, tmp_path: Path) -> None:
    stored = make_backup(here)

    class Once(Faulty):
        def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
            if self.left == 0:
                self.left = 10_000
                next(chunks, None)
                raise self.error
            super().write(name, chunks, size)

    for at in range(4):
        _push_to(here, stored.id, Once(tmp_path / f"once-{at}", at, UnreachableError("cut")))
        assert all(one.good for one in remote_backups(here, str(tmp_path / f"once-{at}")))
    with pytest.raises(UnreachableError, match="cut"):
        _push_to(here, stored.id, Faulty(tmp_path / "never", 1, UnreachableError("cut")))


def test_what_a_killed_push_left_is_read_back_and_not_believed(here: Workplace, elsewhere: str) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    push(here, stored.id, [elsewhere])
    folder = Path(elsewhere)
    (folder / stored.id / "manifest.json").unlink()
    victims = [folder / stored.id / "database.dump.zst", max((folder / "objects").rglob("*.zst"))]
    for victim in victims:
        flip(victim)
    report = push(here, stored.id, [elsewhere]).pushed[0]
    assert (report.outcome, report.files, report.objects) == ("completed", 1, 1)
    assert push(here, stored.id, [elsewhere], verify_only=True).pushed[0].outcome == "proven"


def flip(path: Path, bit: int = 77) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << (bit % 8)
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["*/database.dump.zst", "*/configuration.json", "*/objects.txt", "objects/*/*/*"])
@pytest.mark.parametrize("bit", [0, 7, 93, 160])
def test_a_flipped_bit_there_is_found_refused_and_mended(
    here: Workplace, tmp_path: Path, elsewhere: str, pattern: str, bit: int
) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    push(here, stored.id, [elsewhere])
    flip(min(Path(elsewhere).glob(pattern)), bit)
    new = fresh(tmp_path)
    with pytest.raises(VerificationError):
        pull(new, stored.id, elsewhere)
    assert new.directory.all() == []
    assert not list(new.directory.root.rglob("*.partial-*"))
    with pytest.raises(VerificationError, match="damaged") as caught:
        push(here, stored.id, [elsewhere], verify_only=True)
    assert caught.value.hint is not None
    assert f"push {stored.id}" in caught.value.hint
    assert [one.good for one in remote_backups(here, elsewhere)] == [False]
    with pytest.raises(NothingFoundError):
        pull(new, "latest", elsewhere)
    mended = push(here, stored.id, [elsewhere]).pushed[0]
    assert (mended.outcome, mended.files + mended.objects) == ("completed", 1)
    assert pull(new, "latest", elsewhere).outcome == "brought"


@pytest.mark.parametrize("bit", range(0, 4000, 331))
def test_a_changed_manifest_is_no_backup_and_is_written_again(here: Workplace, elsewhere: str, bit: int) -> None:
    stored = make_backup(here)
    push(here, stored.id, [elsewhere])
    flip(Path(elsewhere) / stored.id / "manifest.json", bit)
    (there,) = remote_backups(here, elsewhere)
    assert not there.good
    with pytest.raises(VerificationError):
        pull(here, stored.id, elsewhere)
    assert push(here, stored.id, [elsewhere]).pushed[0].outcome == "completed"
    assert remote_backups(here, elsewhere)[0].good


@pytest.mark.parametrize("pattern", ["*/database.dump.zst", "*/objects.txt", "objects/*/*/*"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "cut"])
def test_a_missing_or_cut_file_there_makes_the_copy_bad(
    here: Workplace, elsewhere: str, pattern: str, missing: bool
) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    push(here, stored.id, [elsewhere])
    victim = min(Path(elsewhere).glob(pattern))
    if missing:
        victim.unlink()
    else:
        os.truncate(victim, victim.stat().st_size - 1)
    (there,) = remote_backups(here, elsewhere)
    assert not there.good
    assert there.problem
    with pytest.raises(NothingFoundError, match="none of them is good"):
        pull(here, "latest", elsewhere)
    with pytest.raises(VerificationError):
        push(here, stored.id, [elsewhere], verify_only=True)
    assert push(here, stored.id, [elsewhere]).pushed[0].outcome == "completed"
    assert remote_backups(here, elsewhere)[0].good


def test_a_backup_that_is_damaged_here_is_not_copied(here: Workplace, elsewhere: str) -> None:
    stored = make_backup(here)
    flip(here.directory.path(stored.id) / "database.dump.zst")
    with pytest.raises(VerificationError, match=r"database\.dump\.zst is not what was written"):
        push(here, stored.id, [elsewhere])
    assert remote_backups(here, elsewhere) == []
    assert not list(Path(elsewhere).rglob("*database.dump*"))
    here.directory.record(stored.id, Verification("read", CREATED, ok=False, reason="cannot be read"))
    with pytest.raises(VerificationError, match="not good, so it is not copied: cannot be read"):
        push(here, stored.id, [elsewhere])


def test_another_backup_of_the_same_id_is_left_alone(here: Workplace, tmp_path: Path, elsewhere: str) -> None:
    stored = make_backup(here)
    push(here, stored.id, [elsewhere])
    other = fresh(tmp_path)
    shutil.copytree(here.directory.path(stored.id), other.directory.path(stored.id))
    assert stored.manifest is not None
    forged = replace(stored.manifest, sequence=9)
    (other.directory.path(stored.id) / "manifest.json").write_bytes(forged.render())
    before = tree(Path(elsewhere))
    with pytest.raises(PreconditionError, match="another backup"):
        push(other, stored.id, [elsewhere])
    assert tree(Path(elsewhere)) == before
    with pytest.raises(PreconditionError, match="another backup of the same id"):
        pull(other, stored.id, elsewhere)


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "manifest.json", ".hidden", "a/b"])
def test_names_from_elsewhere_are_not_trusted(here: Workplace, tmp_path: Path, elsewhere: str, name: str) -> None:
    stored = make_backup(here)
    push(here, stored.id, [elsewhere])
    assert stored.manifest is not None
    first, *rest = stored.manifest.files
    forged = replace(stored.manifest, files=(replace(first, name=name), *rest))
    (Path(elsewhere) / stored.id / "manifest.json").write_bytes(forged.render())
    new = fresh(tmp_path)
    with pytest.raises(VerificationError, match="cannot be one of a backup"):
        pull(new, stored.id, elsewhere)
    assert new.directory.all() == []
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_damaged_backup_here_is_replaced_by_the_good_copy(here: Workplace, elsewhere: str) -> None:
    stored = make_backup(here, b"precious", checkpoints=CHECKPOINTS)
    push(here, stored.id, [elsewhere])
    os.truncate(here.directory.path(stored.id) / "database.dump.zst", 3)
    flip(min((here.directory.root / "objects").rglob("*.zst")))
    assert pull(here, stored.id, elsewhere).objects == 1
    assert content_of(here, here.directory.get(stored.id)) == b"precious"


def test_order_is_warned_of_when_an_old_copy_counts_as_newer(here: Workplace, tmp_path: Path, elsewhere: str) -> None:
    for day in range(3):
        make_backup(here, created=CREATED + timedelta(days=day))
    push(here, "latest", [elsewhere])
    new = fresh(tmp_path)
    make_backup(new, created=CREATED + timedelta(days=30))
    pull(new, "latest", elsewhere)
    assert any("will count as newer" in text for text in reporter_of(new).warnings)
    assert make_backup(new, created=CREATED + timedelta(days=31)).sequence == 4


def test_two_pushes_at_once_the_second_is_told_who_works(here: Workplace, elsewhere: str) -> None:
    make_backup(here)
    with here.directory.lock(), pytest.raises(LockedError, match="works on these backups"):
        push(here, "latest", [elsewhere])
    with here.directory.lock(), pytest.raises(LockedError):
        pull(here, "latest", elsewhere)
    with here.directory.lock(), pytest.raises(LockedError):
        prune_remote(here, elsewhere)


def test_one_failing_destination_keeps_the_others_going(here: Workplace, tmp_path: Path, elsewhere: str) -> None:
    make_backup(here)
    report = push(here, "latest", [str(tmp_path / "no" / "parent"), elsewhere])
    assert [one.url for one in report.pushed] == [elsewhere]
    assert "does not exist" in report.failed[0].error
    assert remote_backups(here, elsewhere)[0].good


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "names no place"), ("relative/folder", "names no place"), ("s3://", "names no place"),
        ("ssh://host", "names no place"), ("file://host/x", "names no place"), ("ssh://u:secret@h/x", "password"),
        ("s3://bucket?colour=red", "unknown option colour"), ("s3://bucket?endpoint=host:9000", "must start with"),
        ("s3://bucket?endpoint=http://127.0.0.1:1", "no credentials"),
    ],
)  # fmt: skip
def test_urls_that_name_no_destination(here: Workplace, url: str, message: str) -> None:
    make_backup(here)
    with pytest.raises(UsageError, match=message) as caught:
        push(here, "latest", [url])
    assert "secret" not in str(caught.value)


def test_a_destination_may_not_be_the_backups_themselves(here: Workplace) -> None:
    make_backup(here)
    for url in (here.directory.root, here.directory.root / "copies", here.directory.root.parent):
        with pytest.raises(UsageError, match="within each other"):
            push(here, "latest", [str(url)])
    with pytest.raises(UsageError, match="no destination"):
        push(here, "latest", [])


def test_nothing_there(here: Workplace, elsewhere: str) -> None:
    assert remote_backups(here, elsewhere) == []
    for which in ("latest", "2026", ""):
        with pytest.raises(NothingFoundError):
            pull(here, which, elsewhere)
    stored = make_backup(here)
    with pytest.raises(NothingFoundError, match="no copy"):
        push(here, stored.id, [elsewhere], verify_only=True)
    assert not Path(elsewhere).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small") as folder:
        yield folder


def test_a_full_disk_there_leaves_no_backup_and_room_makes_it_go_on(here: Workplace, small_disk: Path) -> None:
    stored = make_backup(here, os.urandom(700_000))
    (small_disk / "filler").write_bytes(bytes(500_000))
    url = str(small_disk / "copies")
    with pytest.raises(DestinationError, match="is full: No space left") as caught:
        push(here, stored.id, [url])
    assert caught.value.hint is not None
    assert "prune --at" in caught.value.hint
    assert remote_backups(here, url) == []
    assert not list(small_disk.rglob(".partial-*"))
    (small_disk / "filler").unlink()
    assert push(here, stored.id, [url]).pushed[0].outcome in {"copied", "completed"}


def test_a_full_disk_here_leaves_nothing_and_is_seen_before(
    here: Workplace, elsewhere: str, small_disk: Path, tmp_path: Path
) -> None:
    make_backup(here)
    push(here, "latest", [elsewhere])
    new = workplace_at(small_disk)
    with pytest.raises(PreconditionError, match="MB are needed"):
        pull(new, "latest", elsewhere)
    assert new.directory.all() == []


def test_the_disk_here_fills_up_while_a_file_comes(here: Workplace, elsewhere: str, small_disk: Path) -> None:
    stored = make_backup(here, os.urandom(2_000_000))
    push(here, "latest", [elsewhere])
    assert stored.manifest is not None
    entry = stored.manifest.files[0]
    target = small_disk / entry.name
    with pytest.raises(PreconditionError, match="No space left") as caught, reporter_of(here).step("bring") as step:
        Transfer(Folder(Path(elsewhere))).bring(f"{stored.id}/{entry.name}", target, entry.size, entry.sha256, step)
    assert caught.value.hint is not None
    assert not target.exists()


def test_a_read_only_disk(here: Workplace, small_disk: Path) -> None:
    make_backup(here)
    make_read_only(small_disk)
    with pytest.raises(DestinationError, match="Read-only file system"):
        push(here, "latest", [str(small_disk / "copies")])


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_folder_that_refuses_says_why(tmp_path: Path, error: int) -> None:
    folder = Folder(tmp_path)

    def refusing() -> Iterator[bytes]:
        yield b"some"
        raise OSError(error, os.strerror(error))

    with pytest.raises(DestinationError, match=os.strerror(error)) as caught:
        folder.write("x/y", refusing(), 4)
    assert caught.value.hint
    assert folder.list() == {}


def test_a_kept_environment_is_found_among_others(here: Workplace, tmp_path: Path, elsewhere: str) -> None:
    mine = make_backup(here)
    push(here, "latest", [elsewhere])
    other = fresh(tmp_path, name="other")
    theirs = make_backup(other, created=CREATED + timedelta(days=9))
    push(other, "latest", [elsewhere])
    assert pull(here, "latest", elsewhere).id == mine.id
    assert pull(other, "latest", elsewhere).id == theirs.id
    (tmp_path / "third").mkdir()
    third = workplace_at(tmp_path / "third", name="third")
    with pytest.raises(UsageError, match="local, other, and none of third"):
        pull(third, "latest", elsewhere)


def days(workplace: Workplace, count: int) -> list[str]:
    return [
        make_backup(workplace, b"%d" % day, checkpoints={"s": b"shared", "d": b"%d" % (day // 2)},
                    created=CREATED + timedelta(days=day), kind="scheduled").id
        for day in range(count)
    ]  # fmt: skip


@pytest.fixture
def strict(tmp_path: Path) -> Workplace:
    (tmp_path / "here").mkdir()
    return workplace_at(tmp_path / "here", now=CREATED + timedelta(days=9), keep_daily=2, keep_weekly=0, keep_monthly=0)


def test_retention_there_keeps_what_the_policy_keeps(strict: Workplace, elsewhere: str) -> None:
    ids = days(strict, 6)
    marks = strict.directory.get(ids[1]).marks
    push(strict, None, [elsewhere])
    strict.directory.mark(ids[1], Marks(True, "kept for the paper", marks.verifications))
    before = tree(Path(elsewhere))
    planned = prune_remote(strict, elsewhere, True)
    assert tree(Path(elsewhere)) == before
    done = prune_remote(strict, elsewhere)
    assert planned.decisions == done.decisions
    assert done.bytes == planned.bytes > 0
    assert [one.id for one in remote_backups(strict, elsewhere)] == [ids[1], ids[4], ids[5]]
    assert all(one.good for one in remote_backups(strict, elsewhere))
    assert done.objects == 1  # that of days 2 and 3; day 1 is pinned and shares its own with day 0
    assert prune_remote(strict, elsewhere).bytes == 0


def test_the_last_good_copy_stays_however_many_bad_ones_are_newer(strict: Workplace, elsewhere: str) -> None:
    ids = days(strict, 5)
    push(strict, None, [elsewhere])
    for bad in ids[1:]:
        (Path(elsewhere) / bad / "database.dump.zst").unlink()
    prune_remote(strict, elsewhere)
    assert ids[0] in [one.id for one in remote_backups(strict, elsewhere) if one.good]
    assert pull(strict, "latest", elsewhere).id == ids[0]


class Killed(Folder):
    """A folder; the process is killed at a given removal."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self.left = left

    def remove(self, name: str) -> None:
        if self.left == 0:
            raise CutError
        self.left -= 1
        super().remove(name)


def test_killed_while_pruning_the_next_run_removes_the_rest(strict: Workplace, elsewhere: str) -> None:
    ids = days(strict, 4)
    push(strict, None, [elsewhere])
    for gone in ids[:2]:
        strict.directory.remove(gone)
    for killed_at in range(12):
        with suppress(CutError):
            prune_copies(strict, Transfer(Killed(Path(elsewhere), killed_at)))
        backups = remote_backups(strict, elsewhere)
        assert [one.id for one in backups if one.good][-2:] == ids[2:]
        assert all(one.good for one in backups)
    prune_remote(strict, elsewhere)
    assert {path.name for path in Path(elsewhere).iterdir()} == {*ids[2:], "objects"}


def test_an_unfinished_copy_is_removed_when_a_newer_one_is_whole(strict: Workplace, elsewhere: str) -> None:
    first, second = days(strict, 2)
    with pytest.raises(CutError):
        _push_to(strict, first, Faulty(Path(elsewhere), 5, CutError()))
    assert prune_remote(strict, elsewhere).leftovers == ()  # the next push completes it
    push(strict, second, [elsewhere])
    assert prune_remote(strict, elsewhere).leftovers == (first,)
    assert {path.name for path in Path(elsewhere).iterdir()} == {second, "objects"}
    assert push(strict, first, [elsewhere]).pushed[0].outcome == "copied"
    assert all(one.good for one in remote_backups(strict, elsewhere))


def test_copies_of_other_environments_are_left_alone(strict: Workplace, tmp_path: Path, elsewhere: str) -> None:
    other = fresh(tmp_path, name="other")
    theirs = days(other, 4)
    push(other, None, [elsewhere])
    (Path(elsewhere) / theirs[0] / "manifest.json").unlink()  # a copy of theirs on its way
    days(strict, 4)
    push(strict, None, [elsewhere])
    done = prune_remote(strict, elsewhere)
    assert done.leftovers == ()
    assert done.objects == 0
    found = {one.id for one in remote_backups(strict, elsewhere)}
    assert set(theirs[1:]) <= found
    assert (Path(elsewhere) / theirs[0] / "database.dump.zst").exists()


def test_errors_are_those_of_one_family(here: Workplace, tmp_path: Path) -> None:
    make_backup(here)
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(OpsError) as caught:
        push(here, "latest", [str(tmp_path / "a-file")])
    assert caught.value.hint
