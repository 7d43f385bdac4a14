"""Our own writer and reader agree with the library's, and garbled files are named."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mistudio_server.training.safetensors_file import (
    GarbledFileError,
    read_header,
    read_tensors,
    sha256_of,
    write_tensors,
)

TENSORS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.ones((2, 2), dtype=np.float16),
    "scalar": np.asarray(7, dtype=np.float32),
    "bytes": np.arange(5, dtype=np.uint8),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def header(content: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        digest = write_tensors(file, TENSORS, {"a": "b"})
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert digest == sha256_of(path)


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    for name, array in read_tensors(path).items():
        np.testing.assert_array_equal(array, TENSORS[name])


def test_the_callers_array_is_written_as_it_lies_in_a_transposed_view() -> None:
    file = io.BytesIO()
    write_tensors(file, {"t": TENSORS["matrix"].T})
    loaded = safetensors.numpy.load(file.getvalue())
    np.testing.assert_array_equal(loaded["t"], TENSORS["matrix"].T)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "0 bytes", id="empty"),
        pytest.param(b"abc", "3 bytes", id="shorter-than-a-length"),
        pytest.param(header({}, length=10**15), "claims", id="header-longer-than-the-file"),
        pytest.param(struct.pack("<Q", 4) + b"\xff\xfe{}", "header", id="not-json"),
        pytest.param(header([1, 2]), "header", id="a-list"),
        pytest.param(header({"a": {"dtype": "F32"}}), "header", id="no-offsets"),
        pytest.param(header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}), "truncated", id="no-data"),
        pytest.param(
            header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"x" * 8), "does not fit", id="shape"
        ),
        pytest.param(
            header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}}, b"x" * 8), "impossible", id="order"
        ),
    ],
)
def test_garbled_file_says_why(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(GarbledFileError, match=says):
        read_header(path)
