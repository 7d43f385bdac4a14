"""Shards: read by map in a repeatable order, refused with file, value and remedy when they cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mistudio_server.errors import InsufficientStorageError, InvalidDatasetError
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.durable import TEMPORARY_PREFIX
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.shards import ShardWriter, open_shards, to_float32
from tests.unit.training.synthetic import noise, write_rows


def save(folder: Path, name: str, **tensors: Array) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / name)
    return folder / name


def bfloat16_bits(rows: Array) -> Array:
    return (rows.view(np.uint32) >> 16).astype(np.uint16)


def save_bfloat16(path: Path, rows: Array) -> None:
    """Write with the library as U16, then name the type: bfloat16 has no numpy type."""
    safetensors.numpy.save_file({"activations": bfloat16_bits(rows)}, path)
    path.write_bytes(path.read_bytes().replace(b'"U16"', b'"BF16"', 1))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little") + 1
    path.write_bytes(length.to_bytes(8, "little") + content[8:])


def test_writer_and_store_round_trip_over_shards(tmp_path: Path) -> None:
    rows = noise(2_000)
    write_rows(tmp_path, rows, shard_rows=300)
    store = ActivationStore(tmp_path)
    assert (store.rows, store.d_model, len(store.shards)) == (2_000, 16, 7)
    np.testing.assert_array_equal(np.concatenate(list(store.in_order(333))), rows)


def test_library_reads_a_shard(tmp_path: Path) -> None:
    rows = noise(10)
    write_rows(tmp_path, rows)
    loaded = safetensors.numpy.load_file(tmp_path / "shard-00000.safetensors")
    np.testing.assert_array_equal(loaded["activations"], rows)


def test_an_epoch_of_batches_holds_every_row(tmp_path: Path) -> None:
    rows = noise(640)
    write_rows(tmp_path, rows, shard_rows=100)
    store = ActivationStore(tmp_path)
    epoch = np.concatenate([store.batch(seed=1, step=step, batch_size=64) for step in range(10)])
    np.testing.assert_array_equal(np.sort(epoch[:, 0]), np.sort(rows[:, 0]))


def test_batch_does_not_depend_on_the_size_of_shards(tmp_path: Path) -> None:
    rows = noise(500)
    batches = []
    for shard_rows in (500, 77):
        folder = tmp_path / str(shard_rows)
        write_rows(folder, rows, shard_rows=shard_rows)
        batches.append(ActivationStore(folder).batch(seed=9, step=31, batch_size=50))
    np.testing.assert_array_equal(*batches)


def test_half_precision_is_widened_exactly(tmp_path: Path) -> None:
    rows = noise(50)
    write_rows(tmp_path / "half", rows, dtype="float16")
    np.testing.assert_array_equal(next(ActivationStore(tmp_path / "half").in_order(50)), rows.astype(np.float16))
    (tmp_path / "brain").mkdir()
    save_bfloat16(tmp_path / "brain" / "a.safetensors", rows)
    wide = next(ActivationStore(tmp_path / "brain").in_order(50))
    np.testing.assert_array_equal(wide, to_float32(bfloat16_bits(rows)))
    np.testing.assert_allclose(wide, rows, rtol=2**-7)


def test_the_only_float_matrix_is_taken_whatever_its_name(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", hidden=noise(5), ids=np.arange(5))
    assert ActivationStore(tmp_path).rows == 5


def test_more_shards_than_open_files_are_allowed(tmp_path: Path) -> None:
    write_rows(tmp_path, noise(600), shard_rows=2)
    store = ActivationStore(tmp_path)
    assert len(store.shards) == 300
    assert len(np.concatenate(list(store.in_order(600)))) == 600


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(InvalidDatasetError) as caught:
        open_shards(folder)
    for word in words:
        assert word in caught.value.detail
    assert caught.value.hint


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "not a folder")
    refused(tmp_path, "no .safetensors file")


def test_shards_without_rows_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", activations=np.zeros((0, 4), dtype=np.float32))
    refused(tmp_path, "no row")


def test_shard_of_another_width_is_named_with_both_widths(tmp_path: Path) -> None:
    save(tmp_path, "a.safetensors", activations=noise(5, 16))
    odd = save(tmp_path, "b.safetensors", activations=noise(5, 12))
    refused(tmp_path, str(odd), "width 12", "width 16")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"activations": np.zeros((3, 4), dtype=np.int32)}, ["I32", "F32, F16, BF16"]),
        ({"activations": np.zeros((3, 4), dtype=np.float64)}, ["F64"]),
        ({"activations": np.zeros((3, 4, 5), dtype=np.float32)}, ["[3, 4, 5]"]),
        ({"a": noise(3), "b": noise(3)}, ["a F32 [3, 16]", "b F32 [3, 16]"]),
        ({"ids": np.arange(3)}, ["ids I64 [3]"]),
    ],
)
def test_wrong_tensors_are_named(tmp_path: Path, tensors: dict[str, Array], words: list[str]) -> None:
    path = save(tmp_path, "a.safetensors", **tensors)
    refused(tmp_path, str(path), *words)


@pytest.mark.parametrize("kept", [0, 5, 60, 200])
def test_truncated_shard_is_named(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path, "a.safetensors", activations=noise(5))
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path, str(path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named_with_shard_and_row(tmp_path: Path, value: float) -> None:
    rows = noise(1_000)
    rows[733, 3] = value
    write_rows(tmp_path, rows, shard_rows=300)
    store = ActivationStore(tmp_path)
    with pytest.raises(InvalidDatasetError, match="row 133 holds") as caught:
        store.batch(seed=0, step=0, batch_size=1_000)
    assert "shard-00002.safetensors" in caught.value.detail
    assert str(value) in caught.value.detail


def test_huge_finite_values_are_no_error(tmp_path: Path) -> None:
    write_rows(tmp_path, np.full((100, 16), 3e38, dtype=np.float32))
    assert np.isfinite(ActivationStore(tmp_path).batch(seed=0, step=0, batch_size=100)).all()


def test_writer_that_fails_leaves_only_whole_shards(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, d_model=16, shard_rows=10) as writer:
            writer.append(noise(25))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert ActivationStore(tmp_path).rows == 20


def test_full_disk_is_named(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    (tmp_path / f"{TEMPORARY_PREFIX}shard").symlink_to("/dev/full")
    with (
        pytest.raises(InsufficientStorageError, match="became full"),
        ShardWriter(tmp_path, d_model=16) as writer,
    ):
        writer.append(noise(100_000))
    assert not list(tmp_path.iterdir())
