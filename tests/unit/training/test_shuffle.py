"""The order of the rows: each once an epoch, the same for the same seed, another for another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudio_server.training.shuffle import permute, rows_for_step


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    values = permute(np.arange(size, dtype=np.uint64), size, key=key)
    assert sorted(values.tolist()) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 500), batch=st.integers(1, 97), seed=st.integers(0, 2**63 - 1))
def test_every_row_comes_once_in_each_epoch(rows: int, batch: int, seed: int) -> None:
    steps = -(-2 * rows // batch)
    seen = np.concatenate([rows_for_step(seed=seed, step=s, batch_size=batch, rows=rows) for s in range(steps)])
    counts = np.bincount(seen.astype(np.int64), minlength=rows)
    assert counts.min() >= 2
    assert counts.max() <= 3 + batch // rows


def test_same_seed_and_step_give_the_same_rows_whatever_was_asked_before() -> None:
    first = rows_for_step(seed=3, step=17, batch_size=64, rows=1000)
    rows_for_step(seed=3, step=2, batch_size=64, rows=1000)
    np.testing.assert_array_equal(first, rows_for_step(seed=3, step=17, batch_size=64, rows=1000))


def test_seed_epoch_and_stream_change_the_order() -> None:
    batches = {
        tuple(rows_for_step(seed=seed, step=step, batch_size=64, rows=640, stream=stream).tolist())
        for seed, step, stream in [(0, 0, 0), (1, 0, 0), (0, 10, 0), (0, 0, 1)]
    }
    assert len(batches) == 4


def test_neighbours_are_spread() -> None:
    """Rows of one batch come from everywhere: their mean gap is that of a uniform draw, to 15 %."""
    rows = rows_for_step(seed=0, step=0, batch_size=4096, rows=10**9).astype(np.int64)
    gaps = np.diff(rows)
    assert abs(gaps.mean() - 10**9 / 4096) < 0.15 * 10**9 / 4096
    assert abs(gaps.std() / gaps.mean() - 1) < 0.15  # exponential gaps, as of independent draws


def test_a_batch_larger_than_the_dataset_repeats_it_evenly() -> None:
    counts = np.bincount(rows_for_step(seed=0, step=0, batch_size=25, rows=10).astype(np.int64), minlength=10)
    assert set(counts.tolist()) <= {2, 3}
