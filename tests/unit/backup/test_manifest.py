"""A manifest is what was written, byte for byte, or it is refused."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudio_ops.domain.backup import (
    CheckpointFacts,
    Manifest,
    ManifestError,
    Marks,
    StoredBackup,
    TableRows,
    Verification,
)
from tests.support.backups import NOON, manifest

SOUND = replace(manifest(7), checkpoints=CheckpointFacts(2, 300, 1, 150, ("tr_1/step-0000000100",))).render()


def test_it_reads_back_as_it_was() -> None:
    assert Manifest.parse(SOUND).render() == SOUND
    assert Manifest.parse(SOUND) == replace(
        manifest(7), checkpoints=CheckpointFacts(2, 300, 1, 150, ("tr_1/step-0000000100",))
    )


def test_partitions_are_counted_with_their_parent() -> None:
    tables = (
        TableRows("public", "trainings", 3),
        TableRows("public", "training_metrics_y2026m10", 100, "training_metrics"),
        TableRows("public", "training_metrics_y2026m11", 50, "training_metrics"),
    )
    assert replace(manifest(1), tables=tables).rows_by_table() == {"trainings": 3, "training_metrics": 150}


def test_every_flipped_bit_is_found() -> None:
    for bit in range(len(SOUND) * 8):
        damaged = bytearray(SOUND)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ManifestError):
            Manifest.parse(bytes(damaged))


def test_every_cut_is_found() -> None:
    for length in range(len(SOUND)):
        with pytest.raises(ManifestError):
            Manifest.parse(SOUND[:length])


@given(position=st.integers(0, len(SOUND)), extra=st.binary(min_size=1, max_size=5))
def test_every_insertion_is_found(position: int, extra: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.parse(SOUND[:position] + extra + SOUND[position:])


@pytest.mark.parametrize(
    ("key", "value"),
    [("sequence", 8), ("environment", "other"), ("kind", "manual"), ("created", "2027-01-01T00:00:00+00:00"),
     ("tables", []), ("tables", 5), ("files", [{"name": "x"}]), ("format", 2), ("kind", "odd"),
     ("created", "2026-11-23T12:00:00")],
)  # fmt: skip
def test_an_edited_one_is_refused(key: str, value: object) -> None:
    document = json.loads(SOUND)
    document[key] = value
    with pytest.raises(ManifestError):
        Manifest.parse(json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"sha256": 1}', b"1" * 5000])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.parse(raw)


def test_a_failure_makes_it_bad_until_it_is_proven_again() -> None:
    marks = Marks().with_verification(Verification("read", NOON, ok=True))
    assert marks.verified("hash") == NOON
    assert marks.verified("restore") is None
    later = NOON + timedelta(hours=1)
    failed = marks.with_verification(Verification("hash", later, ok=False, reason="a bit"))
    assert StoredBackup("x", manifest(1), marks).good
    assert not StoredBackup("x", manifest(1), failed).good
    assert failed.with_verification(Verification("restore", later, ok=True)).failure is None


def test_a_lower_level_does_not_clear_a_higher_ones_failure() -> None:
    marks = Marks().with_verification(Verification("restore", NOON, ok=False, reason="rows differ"))
    assert marks.with_verification(Verification("hash", NOON + timedelta(1), ok=True)).failure is not None


def test_marks_read_back_and_garbled_ones_say_so() -> None:
    marks = Marks(pinned=True, pin_reason="paper").with_verification(Verification("read", NOON, ok=True))
    assert Marks.parse(marks.render()) == marks
    for raw in (b"", b"{}", b"[]", marks.render()[:40], b'{"pinned": true, "verifications": [{"level": "odd"}]}'):
        assert Marks.parse(raw).damaged
