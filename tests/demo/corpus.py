"""Real English text that every Python carries: the language reference and the docstrings of the standard library."""

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

MINIMUM_DOCSTRING = 200
HELD_OUT_EVERY = 10


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text to train on, and text that the training never sees."""

    train: str
    held_out: str


def corpus(train_bytes: int) -> Corpus:
    """Return at least ``train_bytes`` of text to train on and about a tenth of that held out; each tenth passage is.

    Raises:
        ValueError: the standard library has less text than that.
    """
    train: list[str] = []
    held_out: list[str] = []
    size = 0
    for number, passage in enumerate(_passages()):
        if number % HELD_OUT_EVERY == 0:
            held_out.append(passage)
            continue
        train.append(passage)
        size += len(passage.encode()) + 1
        if size >= train_bytes:
            return Corpus("\n".join(train), "\n".join(held_out))
    raise ValueError(f"the standard library has {size} bytes of text, not {train_bytes}")


def _passages() -> Iterator[str]:
    for _, text in sorted(topics.items()):
        yield " ".join(text.split())
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "dist-packages", "test", "tests", "idlelib"} & set(path.relative_to(library).parts):
            yield from _docstrings(path)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and len(docstring) >= MINIMUM_DOCSTRING:
                yield " ".join(docstring.split())
