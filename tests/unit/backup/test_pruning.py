"""Pruning on a disk: read first, remove after; killed or failing anywhere, nothing that is good is lost."""

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import Marks, StoredBackup, Verification
from mistudio_ops.domain.retention import RetentionPolicy
from mistudio_ops.drivers.archive_file import verify_hash
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.errors import LockedError
from mistudio_ops.operations.backup.prune import Pruned, prune
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter
from tests.support.backups import NOON, garble, put, workplace

POLICY = RetentionPolicy(daily=2, weekly=0, monthly=0)
DAY = timedelta(days=1)


def nights(place: Workplace, count: int) -> list[StoredBackup]:
    """Make one backup a night, the last at NOON."""
    return [put(place.directory, NOON - (count - 1 - night) * DAY) for night in range(count)]


def ids(place: Workplace) -> list[str]:
    return [one.id for one in place.directory.all()]


def sound(directory: BackupDirectory, stored: StoredBackup) -> bool:
    assert stored.manifest
    for entry in stored.manifest.files:
        verify_hash(directory.path(stored.id) / entry.name, entry)
    return True


def test_it_removes_what_the_policy_does_not_keep(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    done = prune(place, POLICY)
    assert ids(place) == [one.id for one in made[3:]]
    assert done.removed == tuple(one.id for one in made[:3])
    assert done.freed_bytes == sum(one.manifest.size for one in made[:3] if one.manifest)
    assert prune(place, POLICY).removed == (), "a second prune right away removes nothing"


def test_the_policy_is_the_configured_one(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    nights(place, 12)
    prune(place)
    assert len(ids(place)) == 8, "seven days, and the Sunday of the week before"


def test_a_dry_run_needs_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    garble(place.directory, made[4].id)
    (place.directory.root / "lock").touch()
    before = sorted(tmp_path.rglob("*"))
    with place.directory.lock():
        done = prune(place, POLICY, dry_run=True)
    assert [one.id for one in done.plan.remove] == [one.id for one in made[:3]]
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_directory_there_is_nothing_to_do(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    shutil.rmtree(place.directory.root)
    assert prune(place, POLICY).plan.decisions == ()
    assert not place.directory.root.exists()


def test_somebody_else_writing_there_is_respected(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    with place.directory.lock(), pytest.raises(LockedError):
        prune(place, POLICY)
    assert len(ids(place)) == len(made)


def test_the_newest_is_read_before_others_are_removed_for_it(tmp_path: Path) -> None:
    """All but two of eight are rotten, and no mark says so. Those two stay, whatever the policy says."""
    place = workplace(tmp_path)
    made = nights(place, 8)
    for one in (*made[:2], *made[4:]):
        garble(place.directory, one.id)
    done = prune(place, POLICY)
    assert list(done.turned_bad) == [one.id for one in reversed(made[4:])]
    assert [one.id for one in place.directory.all() if one.good] == [one.id for one in made[2:4]]
    assert all("sha256" in reason for reason in done.turned_bad.values())
    assert set(done.removed) == {one.id for one in made[:2]}, "a newer one is good; the bad newer ones stay"
    assert len(ids(place)) == 6


def test_the_only_proven_one_is_read_too(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    for one in (made[0], made[1]):
        place.directory.record(one.id, Verification("restore", NOON - 3 * DAY, ok=True))
    garble(place.directory, made[1].id)
    prune(place, POLICY)
    assert ids(place) == [made[0].id, made[3].id, made[4].id], "the one proven before it takes its place"


def test_a_kept_one_that_rotted_gives_its_place_to_one_that_would_have_gone(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 4)
    garble(place.directory, made[2].id)
    done = prune(place, POLICY)
    assert ids(place) == [made[1].id, made[3].id]
    assert done.removed == (made[0].id, made[2].id)


def test_nothing_is_read_where_nothing_is_removed(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 2)
    garble(place.directory, made[0].id)
    assert prune(place, POLICY).turned_bad == {}


def test_a_bad_one_with_damaged_marks_ends_the_planning(tmp_path: Path) -> None:
    """Its marks cannot say that it is bad, and it must not be counted on all the same."""
    place = workplace(tmp_path)
    made = nights(place, 4)
    (place.directory.path(made[3].id) / "marks.json").write_text("{")
    garble(place.directory, made[3].id)
    done = prune(place, POLICY)
    assert ids(place) == [one.id for one in made[1:]]
    assert done.removed == (made[0].id,)


def test_a_full_disk_does_not_keep_it_from_making_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    garble(place.directory, made[4].id)

    def full(self: BackupDirectory, backup_id: str, marks: Marks) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BackupDirectory, "mark", full)
    assert prune(place, POLICY).removed == tuple(one.id for one in made[:2])


def test_what_cannot_be_removed_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and str(arguments[0]).endswith(made[1].id):
            raise PermissionError(errno.EACCES, "Permission denied")

    done = _under_hook(place, refuse)
    assert done["failed"] == {made[1].id: "Permission denied"}
    assert ids(place) == [made[1].id, made[3].id, made[4].id]


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_killed_or_failing_at_any_call_nothing_good_is_lost(tmp_path: Path, how: str) -> None:
    """Every open, rename, unlink and rmdir of a prune is once the last one; the next prune then finishes the work."""
    template = workplace(tmp_path / "template")
    made = nights(template, 6)
    template.directory.record(made[0].id, Verification("restore", NOON - 5 * DAY, ok=True))
    template.directory.mark(made[1].id, Marks(pinned=True))
    (template.directory.root / ".partial-20200101T000000Z-abcd").mkdir()
    garble(template.directory, made[5].id)
    moments = 0
    while True:
        place = workplace(tmp_path / "now")
        shutil.copytree(template.directory.root, place.directory.root, dirs_exist_ok=True)
        ended = _in_child(place, moments, kill=how == "kill")
        precious = [made[0].id, made[1].id, made[3].id, made[4].id]
        _check_after_the_blow(place, made, precious)
        shutil.rmtree(tmp_path / "now")
        if ended:
            break
        moments += 1
    assert moments > 25, "the hook saw the calls"


def _check_after_the_blow(place: Workplace, made: list[StoredBackup], precious: list[str]) -> None:
    visible = place.directory.all()
    assert set(precious) <= {one.id for one in visible}
    for one in visible:
        assert one.problem is None, "half a backup never has the name of a whole one"
        assert one.id == made[5].id or sound(place.directory, one)
    prune(place, POLICY)
    assert [one.id for one in place.directory.all()] == [*precious, made[5].id]
    assert not list(place.directory.root.glob(".*-2*")), "nothing half-made or half-removed is left"


def _in_child(place: Workplace, moment: int, *, kill: bool) -> bool:
    """Prune in a forked process that is killed, or fails, at its ``moment``-th call. True when it got to the end."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.addaudithook(_Blow(moment, kill=kill))
            prune(place, POLICY)
            os._exit(0 if _Blow.missed else 1)
        except BaseException:  # noqa: BLE001 - the child of a fork must not come back into pytest
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    return os.WEXITSTATUS(status) == 0


class _Blow:
    """Strikes once, at a call that touches the disk."""

    missed = True
    CALLS = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "os.listdir"})

    def __init__(self, moment: int, *, kill: bool) -> None:
        self.left, self.kill = moment, kill

    def __call__(self, event: str, _: tuple[object, ...]) -> None:
        if event not in self.CALLS or not _Blow.missed:
            return
        if self.left:
            self.left -= 1
            return
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        _Blow.missed = False
        raise OSError(errno.EIO, "Input/output error")


def _under_hook(place: Workplace, hook: Callable[[str, tuple[object, ...]], None]) -> dict[str, object]:
    """Prune in a forked process (an audit hook cannot be taken away again) and return what it says."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sys.addaudithook(hook)
            done: Pruned = prune(place, POLICY)
            os.write(writing, json.dumps({"failed": dict(done.failed)}).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said: dict[str, object] = json.loads(answer.read())
    return said


def test_one_whose_manifest_is_refused_stays_and_one_that_vanishes_is_no_error(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = nights(place, 5)
    manifest = place.directory.path(made[0].id) / "manifest.json"
    manifest.unlink()
    manifest.mkdir()  # reading it fails as it does on a disk with errors, also for root
    (place.directory.path(made[1].id) / "manifest.json").unlink()
    assert [one.unreadable for one in place.directory.all()[:2]] == [True, False]
    prune(place, POLICY)
    assert ids(place) == [made[0].id, made[3].id, made[4].id]

    class Vanishing(BackupDirectory):
        def get(self, backup_id: str) -> StoredBackup:
            if backup_id == made[3].id:
                self.remove(backup_id)
            return super().get(backup_id)

    assert [one.id for one in Vanishing(place.directory.root).all()] == [made[0].id, made[4].id]


def objects(place: Workplace) -> list[Path]:
    return sorted((place.directory.root / "objects").glob("*/??/*"))


def test_checkpoints_go_with_the_last_backup_that_refers_to_them(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    for day, contents in enumerate([(b"a", b"b"), (b"b", b"c"), (b"c",), (b"c", b"d")]):
        put(place.directory, NOON - (3 - day) * DAY, checkpoints=contents)
    assert len(objects(place)) == 4
    done = prune(place, POLICY)
    assert done.objects == 2
    assert len(objects(place)) == 2
    assert prune(place, POLICY).objects == 0


def test_a_checkpoint_that_rotted_makes_its_backups_bad(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = [put(place.directory, NOON - (4 - day) * DAY, checkpoints=(b"%d" % (day // 3),)) for day in range(5)]
    shared = place.directory.root / "objects" / "plain"
    for path in shared.glob("??/*"):
        if path.name.startswith(hashlib.sha256(b"1").hexdigest()):
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = prune(place, POLICY)
    assert set(done.turned_bad) == {made[3].id, made[4].id}
    assert ids(place) == [one.id for one in made[1:]], "the two days before take their places"


def test_references_that_cannot_be_known_keep_every_checkpoint(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = [put(place.directory, NOON - (3 - day) * DAY, checkpoints=(b"%d" % day,)) for day in range(4)]
    manifest = place.directory.path(made[2].id) / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    prune(place, POLICY)
    assert len(objects(place)) == 4
    assert isinstance(place.reporter, RecordingReporter)
    assert any("stay where they are" in said for said in place.reporter.warnings)
