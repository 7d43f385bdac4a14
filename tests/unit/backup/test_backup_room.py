"""Whether a backup will fit, and what a person is shown of it."""

import errno
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import CheckpointFacts, Encryption, FileEntry, Marks, StoredBackup, Verification
from mistudio_ops.domain.quantities import human_age, human_size
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.errors import OpsError, PreconditionError
from mistudio_ops.operations.backup.room import (
    FIRST_RATIO,
    GROWTH,
    SPARE_BYTES,
    DiskFullError,
    disk_errors_named,
    expected_size,
    require_room,
)
from mistudio_ops.presentation.backup_create import create_result, list_result
from tests.support.made_backups import BEGIN, FACTS, manifest_of

KEYS = Keys(Encryption())
GIB = 1 << 30


def stored(number: int, size: int = 1000, marks: Marks = Marks()) -> StoredBackup:  # noqa: B008 - it is frozen
    entry = FileEntry("database.dump.zst", "database", size, "0" * 64, 3 * size, "1" * 64)
    manifest = manifest_of(number, (entry,), KEYS)
    return StoredBackup(manifest.id, manifest, marks)


def test_the_first_one_is_estimated_from_the_database() -> None:
    assert expected_size(FACTS, []) == FACTS.size_bytes * FIRST_RATIO


def test_later_ones_are_estimated_from_the_newest_good_one() -> None:
    failed = Marks(verifications=(Verification("hash", BEGIN, False, "flipped"),))
    backups = [stored(1, 100), stored(2, 5000), stored(3, 9, failed), StoredBackup("x", None, problem="cut")]
    assert expected_size(FACTS, backups) == 5000 * GROWTH
    grown = replace(FACTS, size_bytes=3 * FACTS.size_bytes)
    assert expected_size(grown, backups) == 15_000 * GROWTH
    shrunk = replace(FACTS, size_bytes=FACTS.size_bytes // 3)
    assert expected_size(shrunk, backups) == 5000 * GROWTH
    other = replace(FACTS, name="another")
    assert expected_size(other, backups) == FACTS.size_bytes * FIRST_RATIO


@pytest.mark.parametrize(("free", "fits"), [(GIB + SPARE_BYTES, True), (GIB + SPARE_BYTES - 1, False), (0, False)])
def test_room(free: int, fits: bool) -> None:
    if fits:
        require_room(Path("/b"), GIB, free_bytes=lambda _: free)
        return
    with pytest.raises(PreconditionError, match=r"1,088 MiB on the disk of /b, and [\d,]+ MiB are free") as raised:
        require_room(Path("/b"), GIB, free_bytes=lambda _: free)
    assert "backup prune" in (raised.value.hint or "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(number: int) -> None:
    with pytest.raises(DiskFullError, match="the disk of /b became full"), disk_errors_named(Path("/b")):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EROFS])
def test_other_errors_of_the_system_are_named_with_their_file(number: int) -> None:
    with pytest.raises(OpsError, match=f"/b/file: {os.strerror(number)}"), disk_errors_named(Path("/b")):
        raise OSError(number, os.strerror(number), "/b/file")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (6_543_210, "6.5 MB"), (7e15, "7000 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (-61, "-1 min"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert human_age(timedelta(seconds=seconds)) == text


def test_the_list_says_what_each_is_worth(tmp_path: Path) -> None:
    now = BEGIN + timedelta(days=10)
    proven = Marks(
        pinned=True, pin_reason="before the paper",
        verifications=(Verification("restore", now - timedelta(days=1), True), Verification("hash", now, True)),
    )  # fmt: skip
    failed = Marks(verifications=(Verification("read", now, False, "an object is gone"),))
    backups = [stored(1, marks=proven), stored(2, marks=failed), StoredBackup("x", None, Marks(damaged=True), "cut")]
    result = list_result(tmp_path, backups, now)
    first, second, third = result.data["backups"]
    assert first["verified"]["level"] == "restore"
    assert (first["good"], second["good"], third["good"]) == (True, False, False)
    assert second["problem"] == "an object is gone"
    assert (third["size"], third["rows"], third["age_seconds"]) == (None, None, None)
    text = str(result.blocks)
    for expected in (
        "restore, 1 d 0 h ago",
        "before the paper",
        "an object is gone",
        "marks unreadable",
        "1 of 3 are good",
    ):
        assert expected in text


def test_a_list_of_none(tmp_path: Path) -> None:
    result = list_result(tmp_path, [], BEGIN)
    assert result.data["backups"] == []
    assert f"no backup in {tmp_path}" in str(result.blocks)


def test_what_was_made(tmp_path: Path) -> None:
    one = stored(1, marks=Marks(verifications=(Verification("read", BEGIN, True),)))
    assert one.manifest is not None
    facts = CheckpointFacts(files=4, bytes=10_000, added_files=2, added_bytes=5000)
    one = replace(one, manifest=replace(one.manifest, checkpoints=facts))
    result = create_result(one, tmp_path)
    assert result.data["ratio"] == 3.0
    assert result.data["rows"] == 1001
    assert result.data["verified"] == "read"
    text = str(result.blocks)
    assert "1,001 rows in 1 table," in text
    assert "4 checkpoint files, 2 of them new (5.0 kB)" in text
