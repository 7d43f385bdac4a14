"""Cursors: opaque to clients, so that what a position consists of may change."""

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Query

from mistudio_server.errors import InvalidInputError
from mistudio_server.repositories.paging import PageRequest, Position

Sort = Literal["-created_at", "created_at", "-name", "name"]
_CURSOR_LIMIT = 1024


def encode_cursor(position: Position | None) -> str | None:
    """Return the cursor of a position."""
    if position is None:
        return None
    value = position.value.isoformat() if isinstance(position.value, datetime) else position.value
    return base64.urlsafe_b64encode(json.dumps([position.sort, value, position.id]).encode()).decode()


def decode_cursor(cursor: str, sort: str) -> Position:
    """Return the position that ``cursor`` stands for.

    Raises:
        InvalidInputError: it was not made here, or for a list of another order.
    """
    try:
        made_for, value, identifier = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        texts = all(isinstance(part, str) and "\x00" not in part for part in (made_for, value, identifier))
        if not texts or made_for != sort:
            raise _unknown(cursor)
        position = datetime.fromisoformat(value) if sort.endswith("created_at") else value
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _unknown(cursor) from None
    if isinstance(position, datetime) and position.tzinfo is None:
        raise _unknown(cursor)
    return Position(sort, position, identifier)


def _unknown(cursor: str) -> InvalidInputError:
    return InvalidInputError(
        "The cursor is not one of this list and order.",
        hint="Use next_cursor of the page before with the same sort, or leave cursor out to start anew.",
        errors=[{"field": "query.cursor", "value": cursor, "message": "is not known"}],
    )


def page_request(
    limit: Annotated[int, Query(ge=1, le=200, description="Rows per page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=_CURSOR_LIMIT, description="`next_cursor` of the page before.")
    ] = None,
    q: Annotated[
        str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Part of the name, in any case.")
    ] = None,
    sort: Annotated[Sort, Query(description="A minus means descending.")] = "-created_at",
) -> PageRequest:
    """Return the page that the query string asks for; the status is the endpoint's to add."""
    return PageRequest(limit=limit, sort=sort, q=q, after=decode_cursor(cursor, sort) if cursor else None)


PageQuery = Annotated[PageRequest, Depends(page_request)]
