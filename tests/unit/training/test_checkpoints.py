"""A checkpoint is whole or not there, whatever happens while it is written or after."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mistudio_server.errors import InsufficientStorageError
from mistudio_server.training.checkpoints import (
    META_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    CheckpointStore,
    CorruptCheckpointError,
    Snapshot,
    load_snapshot,
)
from mistudio_server.training.durable import TEMPORARY_PREFIX, full_disk_named
from mistudio_server.training.safetensors_file import sha256_of


def snapshot(step: int, size: int = 8) -> Snapshot:
    return Snapshot(
        step=step,
        weights={"W_enc": np.full((size, size), step, dtype=np.float32)},
        state={"idle_steps": np.arange(size), "generator": np.arange(7, dtype=np.uint8)},
        config={"architecture": "topk"},
        meta={"pending": [], "scale": 0.1},
    )


def store(tmp_path: Path, kept: int = 3) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", kept=kept)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = store(tmp_path).save(snapshot(100))
    loaded = store(tmp_path).load_newest()
    assert loaded.snapshot is not None
    assert (loaded.snapshot.step, loaded.snapshot.meta["scale"]) == (100, 0.1)
    np.testing.assert_array_equal(loaded.snapshot.weights["W_enc"], snapshot(100).weights["W_enc"])
    np.testing.assert_array_equal(loaded.snapshot.state["generator"], np.arange(7))
    assert loaded.saved == saved
    assert saved.path.name == "step-0000000100"
    assert saved.sha256 == sha256_of(saved.path / WEIGHTS_FILE)
    assert saved.size_bytes == sum(file.stat().st_size for file in saved.path.iterdir())


def test_nothing_to_load_is_no_error(tmp_path: Path) -> None:
    loaded = store(tmp_path).load_newest()
    assert (loaded.snapshot, loaded.saved, loaded.passed_over) == (None, None, ())


def test_the_newest_few_are_kept_and_the_removed_named(tmp_path: Path) -> None:
    removed = [store(tmp_path, kept=2).save(snapshot(step)).removed_steps for step in (10, 20, 30, 40)]
    assert removed == [(), (), (10,), (20,)]
    assert names(tmp_path) == ["step-0000000030", "step-0000000040"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store(tmp_path).save(snapshot(10, size=4))
    store(tmp_path).save(snapshot(10, size=5))
    loaded = store(tmp_path).load_newest().snapshot
    assert loaded is not None
    assert loaded.weights["W_enc"].shape == (5, 5)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_bit, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", [WEIGHTS_FILE, STATE_FILE, META_FILE, "cfg.json"])
def test_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path, name: str, damage: object) -> None:
    for step in (10, 20):
        store(tmp_path).save(snapshot(step))
    assert callable(damage)
    damage(tmp_path / "checkpoints" / "step-0000000020" / name)
    loaded = store(tmp_path).load_newest()
    assert loaded.snapshot is not None
    assert loaded.snapshot.step == 10
    (reason,) = loaded.passed_over
    assert "step-0000000020" in reason
    assert "corrupt-step-0000000020" in reason
    assert names(tmp_path) == ["corrupt-step-0000000020", "step-0000000010"]


def test_altered_number_in_the_state_document_is_noticed(tmp_path: Path) -> None:
    path = store(tmp_path).save(snapshot(10)).path / META_FILE
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(CorruptCheckpointError, match=r"state\.json does not have the recorded sha256"):
        load_snapshot(path.parent)


def test_renamed_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = store(tmp_path).save(snapshot(10)).path
    with pytest.raises(CorruptCheckpointError, match="says that it is of step 10"):
        load_snapshot(path.rename(path.with_name("step-0000000011")))


def test_all_damaged_gives_none_and_every_reason(tmp_path: Path) -> None:
    for step in (10, 20):
        empty(store(tmp_path).save(snapshot(step)).path / META_FILE)
    loaded = store(tmp_path).load_newest()
    assert loaded.snapshot is None
    assert len(loaded.passed_over) == 2


def test_a_step_saved_after_its_damaged_one_was_set_aside(tmp_path: Path) -> None:
    empty(store(tmp_path).save(snapshot(10)).path / STATE_FILE)
    store(tmp_path).load_newest()
    store(tmp_path).save(snapshot(10))
    assert names(tmp_path) == ["corrupt-step-0000000010", "step-0000000010"]
    assert store(tmp_path).load_newest().passed_over == ()


def test_leftovers_of_killed_saves_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "checkpoints" / f"{TEMPORARY_PREFIX}step-0000000050-1"
    leftover.mkdir(parents=True)
    (leftover / WEIGHTS_FILE).write_bytes(b"half")
    assert store(tmp_path).load_newest().snapshot is None
    store(tmp_path).save(snapshot(10))
    assert names(tmp_path) == ["step-0000000010"]


def test_too_little_room_is_told_before_a_byte_is_written(tmp_path: Path) -> None:
    store(tmp_path).save(snapshot(10))
    full = CheckpointStore(tmp_path / "checkpoints", kept=3, free_bytes=lambda _: 1_000_000)
    with pytest.raises(InsufficientStorageError, match="The checkpoint of step 20 needs") as caught:
        full.save(snapshot(20))
    assert "resume" in (caught.value.hint or "")
    assert names(tmp_path) == ["step-0000000010"]


_SAVE_UNDER_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
from tests.unit.training.test_checkpoints import snapshot, store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store(Path(sys.argv[1])).save(snapshot(20, size=400))
except Exception as error:
    print(type(error).__name__, error.detail)
"""


def test_write_that_the_system_refuses_leaves_the_earlier_checkpoint_whole(tmp_path: Path) -> None:
    """A real refusal: the kernel lets no file grow over 100 kB (EFBIG), half-way through the weights."""
    store(tmp_path).save(snapshot(10))
    done = subprocess.run(
        [sys.executable, "-c", _SAVE_UNDER_A_LIMIT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("InsufficientStorageError The disk of")
    assert names(tmp_path) == ["step-0000000010"]
    loaded = store(tmp_path).load_newest()
    assert loaded.snapshot is not None
    assert loaded.passed_over == ()


def test_full_disk_of_the_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(InsufficientStorageError, match="No space left"), full_disk_named(tmp_path, "a checkpoint"):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")


def test_other_failures_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_named(tmp_path, "a checkpoint"):
        raise PermissionError(errno.EACCES, "no")
