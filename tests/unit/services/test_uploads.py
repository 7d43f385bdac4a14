"""Multipart uploads, whatever the pieces they arrive in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mistudio_server.errors import InvalidInputError
from mistudio_server.services.uploads import publish_folder, received

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n my corpus \r\n'
    b'--b\r\nContent-Disposition: form-data; name="description"\r\n\r\n\xc3\xa9\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"one\r\n--bogus\r\n\x00two\r\n"
    b"--b--\r\n"
)
TYPE = "multipart/form-data; boundary=b"


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body in pieces."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
async def test_arrives_in_any_pieces(tmp_path: Path, size: int) -> None:
    async with received(tmp_path, TYPE, None, pieces(BODY, size)) as upload:
        assert (upload.name, upload.description) == ("my corpus", "é")
        assert [file.name for file in upload.files] == ["a.txt"]
        assert upload.files[0].read_bytes() == b"one\r\n--bogus\r\n\x00two"
        folder = upload.folder
    assert not folder.exists()


async def test_what_is_published_stays(tmp_path: Path) -> None:
    async with (
        received(tmp_path, TYPE, None, pieces(BODY, 64)) as upload,
        publish_folder(tmp_path, upload.folder, Path("datasets/d")),
    ):
        pass
    assert (tmp_path / "datasets" / "d" / "a.txt").exists()


async def test_what_fails_to_be_published_goes(tmp_path: Path) -> None:
    async def fail_to_commit() -> None:
        async with (
            received(tmp_path, TYPE, None, pieces(BODY, 64)) as upload,
            publish_folder(tmp_path, upload.folder, Path("datasets/d")),
        ):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_to_commit()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        yield BODY[:200]
        raise ConnectionResetError

    async def receive() -> None:
        async with received(tmp_path, TYPE, None, interrupted()):
            pass

    with pytest.raises(ConnectionResetError):
        await receive()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("end", [0, 1, 50, 100, len(BODY) - 8])
async def test_cut_anywhere_it_is_refused(tmp_path: Path, end: int) -> None:
    async def receive() -> None:
        async with received(tmp_path, TYPE, None, pieces(BODY[:end], 64)):
            pass

    with pytest.raises(InvalidInputError):
        await receive()
    assert list((tmp_path / ".incoming").glob("*")) == []
