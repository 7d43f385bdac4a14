"""Checkpoint files come back with the database: those that are missing or differ, and no sound one is touched."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.afterwards import abort
from mistudio_ops.operations.restore.restore import restore, resume
from tests.integration.restore.test_killed import killed
from tests.support.restores import Restorable, purge, restorable, write_checkpoint

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(workplace: Workplace, database_url: str, postgres_admin: str) -> Iterator[Restorable]:
    """A backup with the checkpoints of two trainings."""
    for training, step in (("trn_a", 10), ("trn_a", 20), ("trn_b", 10)):
        write_checkpoint(workplace.environment.data, training, step)
    made = restorable(workplace, database_url, checkpoints=True)
    yield made
    purge(postgres_admin, made.access)


def files(lab: Restorable) -> dict[str, str]:
    root = lab.workplace.environment.data / "checkpoints"
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def root(lab: Restorable) -> Path:
    return lab.workplace.environment.data / "checkpoints"


def test_what_is_missing_comes_back_and_the_rest_is_not_touched(lab: Restorable) -> None:
    before = files(lab)
    shutil.rmtree(root(lab) / "trn_b")
    (root(lab) / "trn_a/step-0000000020/state.json").unlink()
    sound = root(lab) / "trn_a/step-0000000010/state.json"
    inode = sound.stat().st_ino
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    found = files(lab)
    assert {name: found[name] for name in before} == before
    assert sound.stat().st_ino == inode
    assert not list(root(lab).glob(".restore-*"))
    owner = lab.workplace.environment.data.stat()
    assert (root(lab) / "trn_b/step-0000000010/state.json").stat().st_uid == owner.st_uid


def test_what_differs_is_set_aside_not_overwritten(lab: Restorable) -> None:
    path = root(lab) / "trn_b/step-0000000010/sae_weights.safetensors"
    wanted = path.read_text()
    path.write_text(wanted.replace("trn_b", "TRN_B"))
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert path.read_text() == wanted
    (aside,) = (root(lab) / "trn_b").glob("replaced-*")
    assert "TRN_B" in (aside / path.name).read_text()


def test_checkpoints_made_since_stay(lab: Restorable) -> None:
    newer = write_checkpoint(lab.workplace.environment.data, "trn_a", 30)
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert (newer / "state.json").read_text() == "30"


def test_one_that_the_trainer_removes_meanwhile_comes_back_too(lab: Restorable) -> None:
    before = files(lab)
    stop = lab.fake.engine.stop

    def stop_and_remove(name: str) -> None:
        shutil.rmtree(root(lab) / "trn_a/step-0000000010", ignore_errors=True)
        stop(name)

    lab.fake.engine.stop = stop_and_remove  # type: ignore[method-assign]
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert files(lab) == before


def test_a_damaged_object_stops_it_before_anything_stops(lab: Restorable) -> None:
    shutil.rmtree(root(lab) / "trn_b")
    objects = list((lab.workplace.directory.root / "objects").rglob("*.zst"))
    for path in objects:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(VerificationError):
        restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert (lab.rows(), lab.ours()) == ([1, 2, 3, 4, 5], [])
    assert not any(call.startswith("stop") for call in lab.fake.engine.calls)
    assert not list(root(lab).glob(".restore-*"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("title", ["lay checkpoint", "put checkpoint"])
@pytest.mark.parametrize("way", ["resume", "abort"])
def test_killed_on_the_way(lab: Restorable, title: str, when: str, way: str) -> None:
    before = files(lab)
    shutil.rmtree(root(lab) / "trn_b")
    killed(lab, title, when)
    if way == "resume":
        resume(lab.workplace, lab=lab.lab)
        assert files(lab) == before
        assert lab.rows() == [1, 2, 3]
    else:
        abort(lab.workplace, lab=lab.lab)
        assert lab.rows() == [1, 2, 3, 4, 5]
    assert not list(root(lab).glob(".restore-*"))
