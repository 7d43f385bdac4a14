"""Receiving multipart uploads: straight to a folder of DATA_DIR, counted, and renamed into place as a whole.

Starlette's own form parser would spool every file to the system's temporary folder first, which for a model of
gigabytes means writing it twice, and filling a small /tmp.
"""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from mistudio_server.errors import InsufficientStorageError, InvalidInputError
from mistudio_server.ids import new_id
from mistudio_server.services.locations import INCOMING

_TEXT_LIMIT = 4096
_BUFFER = 1 << 20
#: Kept free when an upload's size is known beforehand, so that the disk is not filled to the last byte.
_DISK_RESERVE = 64 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that has wholly arrived: its form fields, and its files in a folder of their own."""

    folder: Path
    files: tuple[Path, ...]
    name: str
    description: str | None


@asynccontextmanager
async def received(
    data_dir: Path, content_type: str, length: int | None, chunks: AsyncIterator[bytes]
) -> AsyncIterator[Upload]:
    """Receive an upload; its folder is gone after the block, unless ``publish_folder`` took it.

    Raises:
        InvalidInputError: not multipart, malformed, cut off, or with an unusable name.
        InsufficientStorageError: no room on the disk.
    """
    boundary = _boundary(content_type)
    _check_room(data_dir, length)
    folder = data_dir / INCOMING / new_id("upl")
    try:
        yield await _receive(folder, boundary, chunks)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full("The disk filled up while the upload arrived; nothing of it was kept.") from error
        raise
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


@asynccontextmanager
async def publish_folder(data_dir: Path, folder: Path, target: Path) -> AsyncIterator[None]:
    """Rename ``folder`` to ``target`` (relative to DATA_DIR); undone when the block, which commits, fails."""
    final = data_dir / target
    final.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(final)
    try:
        yield
    except BaseException:
        final.rename(folder)
        raise


async def _receive(folder: Path, boundary: bytes, chunks: AsyncIterator[bytes]) -> Upload:
    folder.mkdir(parents=True)
    sink = _Sink(folder)
    parser = MultipartParser(boundary, sink.callbacks())  # type: ignore[arg-type]
    pending = bytearray()
    try:
        async for chunk in chunks:
            pending += chunk
            if len(pending) >= _BUFFER:
                await asyncio.to_thread(parser.write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(parser.write, bytes(pending))
    except MultipartParseError as error:
        raise _malformed(str(error)) from error
    finally:
        sink.close()
    if not sink.ended:
        raise _malformed("it ends before its closing boundary")
    return sink.upload()


class _Sink:
    """Writes the parts of a multipart body as the parser meets them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._fields: dict[str, bytearray] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._file: BinaryIO | None = None
        self._field: bytearray | None = None
        self.ended = False

    def callbacks(self) -> dict[str, object]:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begins,
            "on_part_data": self._part_data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        """End the current part."""
        if self._file:
            self._file.close()
        self._file = self._field = None

    def upload(self) -> Upload:
        """Return what arrived.

        Raises:
            InvalidInputError: no name, or no file.
        """
        name = self._text("name")
        if not name:
            raise _part_invalid("name", None, "is required")
        if not self._files:
            raise _part_invalid("file", None, "is required")
        return Upload(self._folder, tuple(self._files), name, self._text("description"))

    def _text(self, field: str) -> str | None:
        raw = bytes(self._fields.get(field, b""))
        try:
            value = raw.decode().strip()
        except UnicodeDecodeError:
            raise _part_invalid(field, None, "is not UTF-8") from None
        if not value.isprintable():
            raise _part_invalid(field, None, "holds control characters")
        return value or None

    def _header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _part_begins(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        field = options.get(b"name", b"").decode(errors="replace")
        if b"filename" in options:
            self._open_file(options[b"filename"].decode(errors="replace"))
        elif field in ("name", "description"):
            self._field = self._fields.setdefault(field, bytearray())
        else:
            raise _part_invalid(field or "part", None, "is not known: send name, description and files")

    def _open_file(self, name: str) -> None:
        path = self._folder / name
        plain = bool(name) and name == path.name and not name.startswith(".") and name.isprintable()
        if not plain or len(name.encode()) > 255:  # noqa: PLR2004
            raise _part_invalid("file", name, "must have a plain file name, without folders")
        if path in self._files:
            raise _part_invalid("file", name, "came twice")
        self._file = path.open("xb")
        self._files.append(path)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            self._file.write(data[start:end])
        elif self._field is not None:
            if len(self._field) + end - start > _TEXT_LIMIT:
                raise _part_invalid("name or description", None, f"is longer than {_TEXT_LIMIT} bytes")
            self._field.extend(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise _malformed("its Content-Type is not multipart/form-data with a boundary")
    return boundary


def _check_room(data_dir: Path, length: int | None) -> None:
    free = shutil.disk_usage(data_dir).free
    if length is not None and length + _DISK_RESERVE > free:
        raise _disk_full(f"The upload has {length} bytes, and the disk of DATA_DIR has {free} free.")


def _disk_full(detail: str) -> InsufficientStorageError:
    return InsufficientStorageError(detail, hint="Delete checkpoints or datasets, or give DATA_DIR a larger disk.")


def _malformed(reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"The upload cannot be read: {reason}.",
        hint="Send multipart/form-data, as in: curl -F name=mine -F file=@corpus.txt URL.",
        errors=[{"field": "body", "value": None, "message": reason}],
    )


def _part_invalid(field: str, value: object, message: str) -> InvalidInputError:
    return InvalidInputError(
        f"Part {field}: {message}.",
        hint="Send the parts name, description (optional) and file, as multipart/form-data.",
        errors=[{"field": f"body.{field}", "value": value, "message": message}],
    )
