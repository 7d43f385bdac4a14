"""What a result looks like to a person: pure values that each reporter draws in its own way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["plain", "good", "warn", "bad", "dim"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Text with a meaning, which a terminal shows as a colour. The text alone must say it too."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of prose."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings. Columns named in ``right`` are aligned to the right, as numbers are."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    title: str | None = None
    right: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Raw:
    """Text for other programs (a rendered file, a log), printed as it is, without wrapping or colour."""

    text: str


Block = Line | Table | Raw


def cell(value: Cell | str) -> Cell:
    """Return ``value`` as a cell."""
    return value if isinstance(value, Cell) else Cell(value)
