"""Keyset paging: a page starts after the last row of the one before, so depth costs nothing and nothing is counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, Select, select, tuple_

from mistudio_server.db.models import Dataset, Model, Training

Row = TypeVar("Row", Dataset, Model, Training)

#: Order of a list: newest first unless asked otherwise. A leading minus is descending.
SORTS = ("-created_at", "created_at", "-name", "name")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: after the row that has this sort value and id."""

    sort: str
    value: str | datetime
    id: str


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is wanted. ``after`` is of the same sort."""

    limit: int = 50
    sort: str = "-created_at"
    after: Position | None = None
    q: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """The rows, and where the next page begins (None: this was the last)."""

    items: Sequence[Row]
    next: Position | None


def page_query(table: type[Row], request: PageRequest, *filters: ColumnElement[bool]) -> Select[Row]:
    """Return the query of one page, and of one row more, which tells whether there is a next page."""
    descending = request.sort.startswith("-")
    column = getattr(table, request.sort.lstrip("-"))
    order = (column.desc(), table.id.desc()) if descending else (column.asc(), table.id.asc())
    query = select(table).where(*filters).order_by(*order).limit(request.limit + 1)
    if request.q:
        query = query.where(table.name.icontains(request.q, autoescape=True))
    if request.status:
        query = query.where(table.status == request.status)
    if request.after:
        here, there = tuple_(column, table.id), tuple_(request.after.value, request.after.id)
        query = query.where(here < there if descending else here > there)
    return query


def cut_page(rows: Sequence[Row], request: PageRequest) -> Page[Row]:
    """Return the page out of the rows of ``page_query``."""
    items = rows[: request.limit]
    if len(rows) <= request.limit:
        return Page(items, None)
    last = items[-1]
    return Page(items, Position(request.sort, getattr(last, request.sort.lstrip("-")), last.id))
