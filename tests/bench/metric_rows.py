"""Metric rows for benchmarks, as trainings write them: float32 values, many trainings, in time and step order."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg

_CHUNK = 100_000
_TRAININGS = 20
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FLOATS = (
    "loss", "loss_reconstructed", "l0_sparsity", "l1_sparsity", "fvu", "learning_rate", "grad_norm",
    "gpu_memory_used_mb", "samples_per_second",
)  # fmt: skip
_COLUMNS = ("training_id", "step", "layer_idx", "timestamp", *_FLOATS, "dead_neurons")
_COPY = f"COPY training_metrics ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT binary)"
_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
INSERT = f"INSERT INTO training_metrics ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"


def fill_metrics(connection: "psycopg.Connection[Any]", rows: int) -> None:
    """Write ``rows`` rows by COPY into the partition of this month."""
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(_HEADER)
        for block in _blocks(rows):
            copy.write(block)
        copy.write(_TRAILER)
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE training_metrics")


def one_row(number: int) -> tuple[Any, ...]:
    """Return the values of one row for ``INSERT``."""
    value = float(np.float32(1 / (1 + number)))
    return ("tr_writer000000", number, None, datetime.now(UTC), *([value] * len(_FLOATS)), number % 1000)


def _blocks(rows: int) -> Iterator[bytes]:
    generator = np.random.default_rng(7)
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin = int((month - _EPOCH).total_seconds() * 1e6)
    for first in range(0, rows, _CHUNK):
        yield _block(generator, first, min(_CHUNK, rows - first), begin, rows)


def _block(generator: np.random.Generator, first: int, count: int, begin: int, rows: int) -> bytes:
    """Return rows in PostgreSQL's binary form: a count of fields, then length and value of each, big-endian."""
    fields = [("training_id", "S15"), ("step", ">i4"), ("layer_idx", ">i2"), ("timestamp", ">i8")]
    fields += [*((name, ">f8") for name in _FLOATS), ("dead_neurons", ">i4")]
    layout: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in fields:
        layout += [(f"{name}_length", ">i4"), (name, kind)]
    block = np.zeros(count, dtype=np.dtype(layout))
    block["fields"] = len(fields)
    for name, kind in fields:
        block[f"{name}_length"] = np.dtype(kind).itemsize
    number = np.arange(first, first + count)
    names = np.array([f"tr_{index:012d}" for index in range(_TRAININGS)], dtype="S15")
    block["training_id"] = names[number % _TRAININGS]
    block["step"] = number // _TRAININGS
    block["layer_idx"] = number % 3
    block["timestamp"] = begin + number * (20 * 86_400 * 1_000_000 // max(1, rows))
    decay = 1.0 / np.sqrt(1.0 + block["step"].astype(np.float64))
    for index, name in enumerate(_FLOATS):
        noise = generator.standard_normal(count, dtype=np.float32) * np.float32(0.01)
        block[name] = ((index + 1) * decay.astype(np.float32) * (1 + noise)).astype(np.float64)
    block["dead_neurons"] = generator.integers(0, 4000, count)
    return block.tobytes()
