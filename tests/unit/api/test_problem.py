"""What is echoed of a value that was refused."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudio_server.problem import echo


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, 1),
        (None, None),
        (True, True),
        (1.5, 1.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ("short", "short"),
        ("x" * 300, "x" * 200 + "..."),
        ("\ud800", "?"),
        ([1, 2], "[a list of 2]"),
        ({"password": "hunter2"}, "{an object of 1}"),
        (b"bytes", "[bytes]"),
    ],
)
def test_echo(value: Any, shown: Any) -> None:
    assert echo(value) == shown


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_every_echo_is_json(value: Any) -> None:
    json.dumps(echo(value), allow_nan=False).encode()
