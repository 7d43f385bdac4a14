"""Pins are marks: they hold, they say why, and they lose nothing that was known."""

from pathlib import Path

import pytest

from mistudio_ops.domain.backup import Verification
from mistudio_ops.errors import LockedError, NothingFoundError
from mistudio_ops.operations.backup.pin import pin, unpin
from tests.support.backups import NOON, garble, put, workplace


def test_a_pin_and_its_reason_come_and_go(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stored = put(place.directory)
    place.directory.record(stored.id, Verification("restore", NOON, ok=True))
    pinned = pin(place, "latest", reason="before the paper")
    assert (pinned.marks.pinned, pinned.marks.pin_reason) == (True, "before the paper")
    assert pinned.marks.verified("restore") == NOON
    assert pin(place, stored.id[:12]).marks.pin_reason is None, "pinning again replaces the reason"
    assert not unpin(place, stored.id).marks.pinned
    assert place.directory.get(stored.id).marks.verified("restore") == NOON
    assert place.directory.get(stored.id).good


def test_a_bad_one_can_be_pinned(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stored = put(place.directory)
    (place.directory.path(stored.id) / "manifest.json").write_text("{")
    garble(place.directory, stored.id)
    assert pin(place, stored.id).marks.pinned


def test_damaged_marks_are_written_anew(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stored = put(place.directory)
    (place.directory.path(stored.id) / "marks.json").write_text("[")
    assert place.directory.get(stored.id).marks.damaged
    assert not unpin(place, stored.id).marks.damaged


def test_what_does_not_exist_cannot_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match="no backup"):
        pin(workplace(tmp_path), "20260101")


def test_it_waits_for_who_writes(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    stored = put(place.directory)
    with place.directory.lock(), pytest.raises(LockedError, match="works on these backups"):
        pin(place, stored.id)
    assert not place.directory.get(stored.id).marks.pinned
