"""Batches of activations from a folder of shards, in a shuffled order that is a pure function of (seed, step).

Shards are mapped, never loaded whole; which rows make a batch is decided in ``shuffle``. Needs numpy only.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.shards import Rows, Shard, open_shards, to_float32
from mistudio_server.training.shuffle import Indices, rows_for_step

#: Each map holds a file descriptor, and 1024 is the usual limit.
_OPEN_MAPS = 256


class ActivationStore:
    """The rows of all shards of a folder, numbered in the order of the shards' names.

    ``rows`` is their number, ``d_model`` their width. Raises ``InvalidDatasetError`` as ``open_shards`` does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = open_shards(folder)
        self.d_model = self.shards[0].d_model
        self._ends = np.cumsum([shard.rows for shard in self.shards])
        self.rows = int(self._ends[-1])
        self._maps: OrderedDict[int, Array] = OrderedDict()

    def batch(self, *, seed: int, step: int, batch_size: int, stream: int = 0, out: Rows | None = None) -> Rows:
        """Return the batch of ``step`` as float32, shape [batch_size, d_model], written into ``out`` when given.

        Raises ``InvalidDatasetError`` naming shard and row when a value is NaN or infinite.
        """
        rows = rows_for_step(seed=seed, step=step, batch_size=batch_size, rows=self.rows, stream=stream)
        return self.take(rows, out)

    def take(self, rows: Indices, out: Rows | None = None) -> Rows:
        """Return the given rows, which must be sorted, as float32, shape [len(rows), d_model]. Raises as ``batch``."""
        batch = np.empty((len(rows), self.d_model), dtype=np.float32) if out is None else out
        cuts = np.searchsorted(rows, self._ends)
        begin = 0
        for number, end in enumerate(cuts):
            if end > begin:
                local = rows[begin:end].astype(np.int64) - (self._ends[number] - self.shards[number].rows)
                batch[begin:end] = to_float32(self._map(number)[local])
                begin = int(end)
        self._check_finite(batch, rows)
        return batch

    def in_order(self, block_rows: int) -> Iterator[Rows]:
        """Yield all rows once, in order, in blocks of at most ``block_rows``. Raises as ``batch``."""
        for begin in range(0, self.rows, block_rows):
            yield self.take(np.arange(begin, min(begin + block_rows, self.rows), dtype=np.uint64))

    def locate(self, row: int) -> tuple[Shard, int]:
        """Return the shard of a row and the row's number in it."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.shards[number], row - int(self._ends[number] - self.shards[number].rows)

    def _map(self, number: int) -> Array:
        mapped = self._maps.pop(number, None)
        if mapped is None:
            mapped = self.shards[number].map()
            if len(self._maps) >= _OPEN_MAPS:
                self._maps.popitem(last=False)
        self._maps[number] = mapped
        return mapped

    def _check_finite(self, batch: Rows, rows: Indices) -> None:
        # One sum is several times cheaper than testing each value: it is not finite if any value is not.
        with np.errstate(all="ignore"):
            if np.isfinite(batch.sum(dtype=np.float64)):
                return
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=1))
        if not len(bad):
            return
        shard, local = self.locate(int(rows[bad[0]]))
        value = batch[bad[0]][~np.isfinite(batch[bad[0]])][0]
        raise InvalidDatasetError(
            f"{shard.path}: row {local} holds the value {value}; activations must be finite",
            hint="Remove that row or extract the activations again, in float32 if float16 overflowed.",
        )
