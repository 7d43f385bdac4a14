"""The safetensors format, read by memory map and written as a stream. Needs numpy only.

A file is 8 bytes of little-endian header length, a JSON header ``{name: {dtype, shape, data_offsets}}`` and the raw
tensors. The library's own writer copies every tensor to bytes first, hides ``errno`` (a full disk is then a string to
parse) and cannot write a tensor whose number of rows is not known yet; this one does none of that, and it hashes
what it writes on the way. ``safetensors`` itself reads what is written here: a test says so.
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

Array = npt.NDArray[Any]

#: safetensors names of the types that we read or write. BF16 has no numpy type: it is kept as its 16 bits.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items() if name != "BF16"}
_MAX_HEADER = 100_000_000  # the library's own limit, in bytes
_HASH_CHUNK = 1 << 20


class GarbledFileError(ValueError):
    """The file is not a whole safetensors file; the message says in what way."""


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Where one tensor lies: ``offset`` and ``size`` are bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path) -> dict[str, TensorSpan]:
    """Return the tensors of ``path`` by name, having checked that each lies inside the file.

    Raises ``GarbledFileError`` for a file that is truncated or is not safetensors, ``OSError`` for one not readable.
    """
    file_size = path.stat().st_size
    with path.open("rb") as file:
        raw_length = file.read(8)
        if len(raw_length) < 8:  # noqa: PLR2004
            raise GarbledFileError(f"it has {len(raw_length)} bytes, fewer than the 8 of a header's length")
        (length,) = struct.unpack("<Q", raw_length)
        if length > min(_MAX_HEADER, file_size - 8):
            raise GarbledFileError(f"its header claims {length} bytes and the file has {file_size}")
        header = file.read(length)
    return _spans(header, data_start=8 + length, file_size=file_size)


def _spans(header: bytes, *, data_start: int, file_size: int) -> dict[str, TensorSpan]:
    try:
        entries: dict[str, Any] = json.loads(header)
        spans = {name: _span(name, entry, data_start) for name, entry in entries.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GarbledFileError(f"its header is not that of a safetensors file ({error})") from error
    for span in spans.values():
        _check_inside(span, data_start, file_size)
    return spans


def _span(name: str, entry: dict[str, Any], data_start: int) -> TensorSpan:
    begin, end = (int(value) for value in entry["data_offsets"])
    shape = tuple(int(value) for value in entry["shape"])
    return TensorSpan(name, str(entry["dtype"]), shape, data_start + begin, end - begin)


def _check_inside(span: TensorSpan, data_start: int, file_size: int) -> None:
    if span.offset < data_start or span.size < 0 or min(span.shape, default=0) < 0:
        raise GarbledFileError(f"tensor {span.name!r} has impossible offsets or shape")
    if span.offset + span.size > file_size:
        missing = span.offset + span.size - file_size
        raise GarbledFileError(f"it is truncated: tensor {span.name!r} needs {missing} bytes more")
    dtype = NUMPY_TYPES.get(span.dtype)
    if dtype is not None and math.prod(span.shape) * dtype.itemsize != span.size:
        raise GarbledFileError(f"tensor {span.name!r} of shape {list(span.shape)} does not fit its {span.size} bytes")


def map_tensor(path: Path, span: TensorSpan) -> Array:
    """Map ``span`` read-only. BF16 comes as ``uint16``."""
    return np.memmap(path, dtype=NUMPY_TYPES[span.dtype], mode="r", offset=span.offset, shape=span.shape)


def read_tensors(path: Path) -> dict[str, Array]:
    """Load every tensor of ``path`` into memory. Raises as ``read_header``, also for a type that numpy lacks."""
    tensors = {}
    with path.open("rb") as file:
        for name, span in read_header(path).items():
            if span.dtype not in NUMPY_TYPES:
                raise GarbledFileError(f"tensor {name!r} has the unknown type {span.dtype}")
            file.seek(span.offset)
            flat = np.fromfile(file, dtype=NUMPY_TYPES[span.dtype], count=math.prod(span.shape))
            tensors[name] = flat.reshape(span.shape)
    return tensors


def write_tensors(file: BinaryIO, tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> str:
    """Write a whole safetensors file without copying a tensor; return the sha256 of what was written.

    Raises ``OSError`` with its ``errno`` (``ENOSPC`` for a full disk).
    """
    digest = hashlib.sha256()
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    header = _header({name: (_NAMES[a.dtype], a.shape, a.nbytes) for name, a in arrays.items()}, metadata)
    chunks: list[Buffer] = [header, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def written_size(tensors: dict[str, Array]) -> int:
    """Return the bytes that ``write_tensors`` will write, give or take a few hundred."""
    return sum(array.nbytes for array in tensors.values()) + 256 * (len(tensors) + 1)


def _header(
    entries: dict[str, tuple[str, tuple[int, ...], int]], metadata: dict[str, str] | None = None, *, width: int = 0
) -> bytes:
    content: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, (dtype, shape, size) in entries.items():
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (max(width, -(-len(text) // 8) * 8) - len(text))  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


class RowStream:
    """Writes one tensor of shape [n, width] row by row; ``n`` is known at the end, so the header is written last."""

    _HEADER_WIDTH = 248  # with its 8 bytes of length, rows begin at byte 256

    def __init__(self, file: BinaryIO, name: str, width: int, dtype: str) -> None:
        self._file, self._name, self._width, self._dtype = file, name, width, dtype
        self.rows = 0
        self._file.write(self._render())

    def append(self, rows: Array) -> None:
        """Append ``rows`` of shape [m, width], cast to the stream's type."""
        block = np.ascontiguousarray(rows, dtype=NUMPY_TYPES[self._dtype])
        self._file.write(block.reshape(-1).view(np.uint8).data)
        self.rows += len(block)

    def finish(self) -> None:
        """Write the header that tells the number of rows."""
        self._file.seek(0)
        self._file.write(self._render())

    def _render(self) -> bytes:
        size = self.rows * self._width * NUMPY_TYPES[self._dtype].itemsize
        return _header({self._name: (self._dtype, (self.rows, self._width), size)}, width=self._HEADER_WIDTH)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
