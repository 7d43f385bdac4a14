"""Text datasets: streamed in pieces that lose and double no character, or refused with file and line."""

import json
from pathlib import Path

import pytest

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.text import PIECE_CHARACTERS, pieces, text_size


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("one\ntwo\n\nthree", id="lines"),
        pytest.param("é" * PIECE_CHARACTERS * 2, id="one-line-of-two-byte-characters"),
        pytest.param("x" + "€" * PIECE_CHARACTERS, id="one-line-of-three-byte-characters"),
        pytest.param("xy" + "\U0001d54f" * PIECE_CHARACTERS, id="one-line-of-four-byte-characters"),
        pytest.param(("a line of text\n" * 20_000), id="many-lines"),
    ],
)
def test_pieces_of_plain_text_join_to_the_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    found = list(pieces(path))
    assert "".join(piece.text for piece in found) == text
    assert max(len(piece.text) for piece in found) < 2 * PIECE_CHARACTERS
    assert found[-1].position == text_size(path) == len(text.encode())


def test_a_line_of_jsonl_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\ntwo", "id": 1}\n\n{"text": "three"}\n')
    assert [piece.text for piece in pieces(path)] == ["one\ntwo", "three"]


def test_long_document_of_jsonl_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x" * (PIECE_CHARACTERS + 5)}))
    assert [len(piece.text) for piece in pieces(path)] == [PIECE_CHARACTERS, 5]


def test_files_of_a_folder_come_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}')
    (tmp_path / "readme.md").write_text("no")
    found = list(pieces(tmp_path))
    assert [piece.text for piece in found] == ["first", "second"]
    assert found[-1].position == text_size(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"good\nbad \xff\xfe\n", ["line 2", "not UTF-8", "0xff"]),
        ("a.txt", b"ends within a character \xe2\x82", ["not UTF-8"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', ["line 2", "not JSON"]),
        ("a.jsonl", b'{"body": "a"}\n', ["line 1", '"text"']),
        ("a.jsonl", b'{"text": 5}\n', ["line 1", '"text"']),
        ("a.jsonl", b"[1]\n", ["line 1", '"text"']),
        ("a.csv", b"x", ["a.csv", ".txt or .jsonl"]),
    ],
)
def test_unusable_text_is_named(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidDatasetError) as caught:
        list(pieces(tmp_path / name))
    for word in words:
        assert word in caught.value.detail
    assert caught.value.hint
