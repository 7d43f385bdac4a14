"""Cursors survive their journey, and nothing else passes for one."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudio_server.api.pagination import decode_cursor, encode_cursor
from mistudio_server.errors import InvalidInputError
from mistudio_server.repositories.paging import Position


@given(st.datetimes(timezones=st.just(UTC)), st.from_regex(r"[a-z]{3}_[0-9a-f]{24}", fullmatch=True))
def test_dates(value: datetime, identifier: str) -> None:
    position = Position("-created_at", value, identifier)
    assert decode_cursor(encode_cursor(position) or "", "-created_at") == position


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_names(value: str) -> None:
    position = Position("name", value, "id")
    assert decode_cursor(encode_cursor(position) or "", "name") == position


@given(st.text(max_size=100))
def test_anything_else(text: str) -> None:
    with pytest.raises(InvalidInputError):
        decode_cursor(text, "-created_at")


def test_the_last_page_has_none() -> None:
    assert encode_cursor(None) is None
