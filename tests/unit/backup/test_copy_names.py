"""What copies are called, and which marks go with them."""

from datetime import UTC, datetime

import pytest

from mistudio_ops.domain.backup import Marks, Verification
from mistudio_ops.domain.backup_copy import safe_name, travelling

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["database.dump.zst.age", "a/b", "objects/plain/ab/ab12.zst", "x", "key.age"])
def test_names_that_stay_below_their_folder(name: str) -> None:
    assert safe_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/../b", "/a", "a//b", "a/", "./a", ".hidden", "a/.b", "a b", "a\n", "a\0", "ä", "-rf", "a\\b"],
)
def test_names_that_do_not(name: str) -> None:
    assert not safe_name(name)


def test_proofs_of_the_content_travel_and_failures_here_do_not() -> None:
    here = Marks(
        True,
        "kept",
        (
            Verification("hash", AT, ok=False, reason="a disk here"),
            Verification("read", AT, ok=False, reason="a disk here"),
            Verification("restore", AT, ok=True),
        ),
    )
    there = Marks(verifications=(Verification("hash", AT, ok=True),))
    marks = travelling(here, there)
    assert (marks.pinned, marks.pin_reason) == (True, "kept")
    assert {(one.level, one.ok) for one in marks.verifications} == {("restore", True), ("hash", True)}
    assert travelling(here, marks) == marks


def test_unreadable_marks_travel_as_a_pin() -> None:
    assert travelling(Marks(damaged=True), Marks()).pinned
