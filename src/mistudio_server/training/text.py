"""Reading text datasets as a stream of bounded pieces. Needs nothing but the standard library."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mistudio_server.errors import InvalidDatasetError

SUFFIXES = (".txt", ".jsonl")
#: A document longer than this is cut at the next line end, or where the limit falls. In characters.
PIECE_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or a part of a long one. ``position`` is the number of bytes of the dataset read up to its end."""

    text: str
    position: int


def text_files(path: Path) -> list[Path]:
    """Return ``path``, or the .txt and .jsonl files in it by name. Raises ``InvalidDatasetError`` if there is none."""
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
    usable = [file for file in files if file.suffix in SUFFIXES and file.is_file()]
    if not usable:
        raise InvalidDatasetError(
            f"{path} holds no text: it must be a .txt or .jsonl file, or a folder of them",
            hint='Give plain UTF-8 text (.txt), or one JSON object with a "text" field a line (.jsonl).',
        )
    return usable


def text_size(path: Path) -> int:
    """Return the bytes of all files of a text dataset."""
    return sum(file.stat().st_size for file in text_files(path))


def pieces(path: Path) -> Iterator[Piece]:
    """Yield the text of a dataset in order. A line of .jsonl is a document; a .txt file is one document, in pieces.

    Raises ``InvalidDatasetError`` naming file, line and remedy for what is not UTF-8, not JSON or lacks "text".
    """
    before = 0
    for file in text_files(path):
        read = _json_lines if file.suffix == ".jsonl" else _plain
        for piece in read(file):
            yield Piece(piece.text, before + piece.position)
        before += file.stat().st_size


def _plain(file: Path) -> Iterator[Piece]:
    gathered: list[str] = []
    size = position = 0
    for number, raw in _lines(file):
        position += len(raw)
        gathered.append(_decode(raw, file, number))
        size += len(gathered[-1])
        if size >= PIECE_CHARACTERS:
            yield Piece("".join(gathered), position)
            gathered, size = [], 0
    if size:
        yield Piece("".join(gathered), position)


def _json_lines(file: Path) -> Iterator[Piece]:
    position = 0
    with file.open("rb") as lines:  # a line is one JSON value, so it must be read whole
        for number, raw in enumerate(lines, start=1):
            position += len(raw)
            if not raw.strip():
                continue
            text = _text_of(_decode(raw, file, number), file, number)
            for begin in range(0, len(text), PIECE_CHARACTERS):
                yield Piece(text[begin : begin + PIECE_CHARACTERS], position)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield lines, and parts of lines that are longer than a piece, without splitting a UTF-8 sequence."""
    number = 1
    rest = b""
    with file.open("rb") as lines:
        while raw := lines.readline(PIECE_CHARACTERS):
            raw = rest + raw
            rest = b"" if raw.endswith(b"\n") else _unfinished(raw)
            yield number, raw[: len(raw) - len(rest)]
            number += raw.endswith(b"\n")
    if rest:
        yield number, rest


def _unfinished(raw: bytes) -> bytes:
    """Return the UTF-8 sequence that ``raw`` ends in the middle of, if any: at most its last three bytes."""
    for length in range(1, min(3, len(raw)) + 1):
        first = raw[-length]
        if first >= 0xC0:  # noqa: PLR2004 - the first byte of a sequence of several
            wanted = 2 + (first >= 0xE0) + (first >= 0xF0)  # noqa: PLR2004
            return raw[-length:] if wanted > length else b""
        if first < 0x80:  # noqa: PLR2004 - a character of one byte
            return b""
    return b""


def _decode(raw: bytes, file: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDatasetError(
            f"{file}: line {number} is not UTF-8 (byte 0x{raw[error.start]:02x})",
            hint="Convert the file: iconv -f LATIN1 -t UTF-8 IN > OUT, with the encoding that it has.",
        ) from error


def _text_of(line: str, file: Path, number: int) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidDatasetError(
            f"{file}: line {number} is not JSON ({error})", hint="Each line must be one whole JSON object."
        ) from error
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise InvalidDatasetError(
            f'{file}: line {number} has no string field "text"', hint='Each line must be like {"text": "..."}.'
        )
    return text
