"""Shards of activations: one safetensors file with one float tensor of shape [n, d_model]. Needs numpy only."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.durable import TEMPORARY_PREFIX, full_disk_named, sync_and_close
from mistudio_server.training.safetensors_file import (
    Array,
    GarbledFileError,
    RowStream,
    TensorSpan,
    map_tensor,
    read_header,
)

Rows = npt.NDArray[np.float32]

TENSOR_NAME = "activations"
FLOAT_TYPES = ("F32", "F16", "BF16")
_MATRIX = 2
_DTYPE_NAMES = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True, slots=True)
class Shard:
    """One file and where its tensor lies; no row of it is read yet."""

    path: Path
    span: TensorSpan

    @property
    def rows(self) -> int:
        return self.span.shape[0]

    @property
    def d_model(self) -> int:
        return self.span.shape[1]

    def map(self) -> Array:
        """Map the tensor read-only; BF16 comes as its 16 bits."""
        return map_tensor(self.path, self.span)


def to_float32(rows: Array) -> Rows:
    """Widen F16, or BF16 given as its 16 bits, to float32: exact for both."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rows.astype(np.float32, copy=False)


def open_shards(folder: Path) -> tuple[Shard, ...]:
    """Return the shards of ``folder`` in the order of their names. Only headers are read.

    Raises ``InvalidDatasetError`` for a folder without shards or rows, and for a shard that is garbled, truncated,
    of another type or of another width than the first.
    """
    if not folder.is_dir():
        raise InvalidDatasetError(
            f"{folder} is not a folder", hint="Give the folder that holds the .safetensors shards."
        )
    shards = tuple(open_shard(path) for path in sorted(folder.glob("*.safetensors")))
    if not shards:
        raise InvalidDatasetError(
            f"{folder} holds no .safetensors file",
            hint="Put shards there, or extract activations into it with POST /api/v1/activations.",
        )
    for shard in shards:
        _check_width(shard, shards[0])
    if not sum(shard.rows for shard in shards):
        raise InvalidDatasetError(f"The shards of {folder} hold no row", hint="Extract the activations again.")
    return shards


def open_shard(path: Path) -> Shard:
    """Check the header of one shard. Raises ``InvalidDatasetError`` naming the file, the value and the remedy."""
    try:
        spans = read_header(path)
    except (GarbledFileError, OSError) as error:
        raise InvalidDatasetError(
            f"{path} cannot be used: {error}", hint="Write or copy this shard again, or remove it from the folder."
        ) from error
    return Shard(path, _choose_tensor(path, spans))


def _choose_tensor(path: Path, spans: dict[str, TensorSpan]) -> TensorSpan:
    matrices = [span for span in spans.values() if len(span.shape) == _MATRIX and span.dtype in FLOAT_TYPES]
    named = spans.get(TENSOR_NAME)
    if named is not None:
        matrices = [named]
    if len(matrices) != 1:
        found = ", ".join(f"{s.name} {s.dtype} {list(s.shape)}" for s in spans.values()) or "nothing"
        raise InvalidDatasetError(
            f"{path} holds {found}, and not one tensor {TENSOR_NAME!r} of shape [n, d_model]",
            hint=f"Save the activations as one F32, F16 or BF16 tensor named {TENSOR_NAME!r}.",
        )
    span = matrices[0]
    if span.dtype not in FLOAT_TYPES:
        raise InvalidDatasetError(
            f"{path}: tensor {span.name!r} has type {span.dtype}; it must be one of {', '.join(FLOAT_TYPES)}",
            hint="Convert it to float32, float16 or bfloat16 and save it again.",
        )
    if len(span.shape) != _MATRIX or span.shape[1] < 1:
        raise InvalidDatasetError(
            f"{path}: tensor {span.name!r} has shape {list(span.shape)}; it must be [n, d_model]",
            hint="Flatten batch and position into one axis of rows.",
        )
    return span


def _check_width(shard: Shard, first: Shard) -> None:
    if shard.d_model != first.d_model:
        raise InvalidDatasetError(
            f"{shard.path} has width {shard.d_model}, and {first.path.name} has width {first.d_model}",
            hint="All shards of a dataset come from one layer of one model: remove or replace the odd one.",
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What a ``ShardWriter`` left on the disk."""

    rows: int
    shards: int
    size_bytes: int


class ShardWriter:
    """Writes rows into ``folder`` as shard-00000.safetensors, shard-00001.safetensors, ...

    Rows go to the file as they come, so memory does not grow with ``shard_rows``. A shard gets its name only when
    it is complete and on the disk. Raises ``InsufficientStorageError`` when the disk is full.
    """

    def __init__(self, folder: Path, *, d_model: int, shard_rows: int = 65_536, dtype: str = "float32") -> None:
        self._folder, self._d_model, self._shard_rows, self._dtype = folder, d_model, shard_rows, _DTYPE_NAMES[dtype]
        self._shards = 0
        self._rows = 0
        self._size = 0
        self._open: tuple[BinaryIO, RowStream] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif self._open is not None:
            with suppress(OSError):  # what is still buffered may have no room either
                self._open[0].close()
            self._temporary().unlink(missing_ok=True)

    def append(self, rows: Array) -> None:
        """Append rows of shape [m, d_model]."""
        with full_disk_named(self._folder, "activations"):
            while len(rows):
                file, stream = self._open = self._open or self._begin()
                taken = min(len(rows), self._shard_rows - stream.rows)
                stream.append(rows[:taken])
                rows = rows[taken:]
                if stream.rows == self._shard_rows:
                    self._close(file, stream)

    @property
    def rows(self) -> int:
        """The rows appended so far."""
        return self._rows + (self._open[1].rows if self._open else 0)

    def finish(self) -> Written:
        """Complete the last shard and return what was written."""
        if self._open is not None:
            with full_disk_named(self._folder, "activations"):
                self._close(*self._open)
        return Written(self._rows, self._shards, self._size)

    def _temporary(self) -> Path:
        return self._folder / f"{TEMPORARY_PREFIX}shard"

    def _begin(self) -> tuple[BinaryIO, RowStream]:
        file = self._temporary().open("wb")
        return file, RowStream(file, TENSOR_NAME, self._d_model, self._dtype)

    def _close(self, file: BinaryIO, stream: RowStream) -> None:
        stream.finish()
        sync_and_close(file)
        self._size += self._temporary().stat().st_size
        self._temporary().rename(self._folder / f"shard-{self._shards:05d}.safetensors")
        self._shards += 1
        self._rows += stream.rows
        self._open = None
