"""Checkpoints in backups: each content once, nothing half, nothing removed that somebody still needs."""

import io
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest

from mistudio_ops.domain.backup import StoredBackup, Verification
from mistudio_ops.drivers import checkpoint_objects
from mistudio_ops.drivers.archive_file import DamagedFileError, read_archive
from mistudio_ops.drivers.checkpoint_objects import (
    ObjectStore,
    UnknownReferencesError,
    clean_objects,
    object_path,
    objects_of,
    sweep_objects,
    verify_objects,
)
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.checkpoints import copy_checkpoints, read_index, unread_bytes
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import HookedReporter, write_checkpoint
from tests.support.made_backups import BEGIN, file_workplace, made


def recipient(tmp_path: Path) -> dict[str, Any]:
    """Return settings that encrypt for a key which is at hand."""
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity"
    path.touch(0o600)
    path.write_text(str(identity))
    return {"recipients": (str(identity.to_public()),), "identity_file": path}


@pytest.fixture(params=["plain", "encrypted"])
def workplace(request: pytest.FixtureRequest, tmp_path: Path) -> Workplace:
    found = file_workplace(tmp_path, **(recipient(tmp_path) if request.param == "encrypted" else {}))
    found.directory.prepare()
    return found


def back_up(workplace: Workplace, number: int) -> StoredBackup:
    return made(workplace, number, copy_checkpoints(workplace, workplace.keys(writing=True)))


def restored(workplace: Workplace, stored: StoredBackup) -> dict[str, bytes]:
    """Return the content of every file of a backup by its path."""
    keys = workplace.keys()
    identities = workplace.identities(stored, keys)
    entries = {one.plain_sha256: one for one in objects_of(workplace.directory, stored)}
    contents = {}
    for file in read_index(workplace, stored, identities):
        path = object_path(workplace.directory, stored, file.sha256)
        sink = io.BytesIO()
        suffix = path.name.removeprefix(file.sha256)
        read_archive(path, entries[file.sha256].entry(suffix), identities, sink)
        contents[file.path] = sink.getvalue()
    return contents


def on_disk(workplace: Workplace) -> dict[str, bytes]:
    root = workplace.environment.data / "checkpoints"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("step-*/*") if path.is_file()}


def object_files(workplace: Workplace) -> list[Path]:
    return sorted((workplace.directory.root / "objects").glob("*/??/*"))


def test_what_was_copied_comes_back(workplace: Workplace) -> None:
    data = workplace.environment.data
    for step, content in enumerate([b"", b"x", os.urandom(3 << 20), b"the same", b"the same"]):
        write_checkpoint(data, f"tr_{step % 2}", step, content)
    stored = back_up(workplace, 1)
    assert restored(workplace, stored) == on_disk(workplace)
    facts = stored.manifest.checkpoints if stored.manifest else None
    assert facts is not None
    assert (facts.files, facts.added_files) == (10, 9), "two have the same content"
    verify_objects(workplace.directory, stored)
    assert {path.stat().st_mode & 0o777 for path in object_files(workplace)} == {0o600}


def test_unchanged_ones_cost_nothing(workplace: Workplace) -> None:
    folder = write_checkpoint(workplace.environment.data, "tr_a", 1, os.urandom(100_000))
    back_up(workplace, 1)
    before = {path: path.stat().st_mtime_ns for path in object_files(workplace)}
    (folder / "sae_weights.safetensors").chmod(0o000)  # not that root would mind
    assert unread_bytes(workplace, workplace.keys(writing=True)) > 0, "its ctime is another"
    (folder / "sae_weights.safetensors").chmod(0o600)
    second = back_up(workplace, 2)
    write_checkpoint(workplace.environment.data, "tr_a", 2, b"new")
    third = back_up(workplace, 3)
    assert second.manifest is not None
    assert third.manifest is not None
    assert second.manifest.checkpoints is not None
    assert third.manifest.checkpoints is not None
    assert second.manifest.checkpoints.added_files == 0
    assert third.manifest.checkpoints.added_files == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before, "not one is written again"
    assert unread_bytes(workplace, workplace.keys(writing=True)) == 0


def test_an_unchanged_file_is_not_read(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, os.urandom(1000))
    back_up(workplace, 1)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr(ObjectStore, "add", refuse)
    stored = back_up(workplace, 2)
    assert restored(workplace, stored) == on_disk(workplace)


def test_a_file_rewritten_with_the_same_size_and_time_is_read(workplace: Workplace) -> None:
    folder = write_checkpoint(workplace.environment.data, "tr_a", 1, b"before")
    path = folder / "sae_weights.safetensors"
    status = path.stat()
    back_up(workplace, 1)
    path.write_bytes(b"behind")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert restored(workplace, back_up(workplace, 2)) == on_disk(workplace)


def test_only_whole_checkpoints_are_taken(workplace: Workplace, tmp_path: Path) -> None:
    root = workplace.environment.data / "checkpoints"
    good = write_checkpoint(workplace.environment.data, "tr_a", 1, b"good")
    for name in (".tmp-step-0000000002-7", "corrupt-step-0000000003", ".tmp-removed-step-1-9", "notes"):
        (root / "tr_a" / name).mkdir()
        (root / "tr_a" / name / "sae_weights.safetensors").write_bytes(b"half")
    (root / "a file").write_bytes(b"no training")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"secret")
    (root / "tr_link").symlink_to(tmp_path / "elsewhere")
    (root / "tr_a" / "step-0000000009").symlink_to(tmp_path / "elsewhere")
    (good / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    os.mkfifo(good / "pipe")
    stored = back_up(workplace, 1)
    assert set(restored(workplace, stored)) == {
        f"tr_a/step-0000000001/{name}" for name in ("sae_weights.safetensors", "cfg.json")
    }


def test_none_at_all(workplace: Workplace) -> None:
    stored = back_up(workplace, 1)
    assert stored.manifest is not None
    assert stored.manifest.checkpoints is not None
    assert stored.manifest.checkpoints.files == 0
    assert objects_of(workplace.directory, stored) == ()
    assert restored(workplace, stored) == {}


@pytest.mark.parametrize("how", ["removed", "renamed", "one file"])
def test_a_checkpoint_that_vanishes_meanwhile_is_left_out_whole(tmp_path: Path, how: str) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path / "data", "tr_a", step, os.urandom(1000))
    doomed = tmp_path / "data" / "checkpoints" / "tr_a" / "step-0000000002"

    def vanish() -> None:
        if how == "removed":
            shutil.rmtree(doomed)
        elif how == "renamed":
            doomed.rename(doomed.with_name(".tmp-removed-step"))
        else:
            (doomed / "sae_weights.safetensors").unlink()

    # Each checkpoint begins with 13 bytes of cfg.json: the second one's is being read.
    reporter = HookedReporter(title="copying", after=1020, hook=vanish)
    workplace = file_workplace(tmp_path, reporter=reporter)
    stored = back_up(workplace, 1)
    assert stored.manifest is not None
    assert stored.manifest.checkpoints is not None
    assert stored.manifest.checkpoints.vanished == ("tr_a/step-0000000002",)
    assert {path.split("/")[1] for path in restored(workplace, stored)} == {"step-0000000001", "step-0000000003"}


def test_a_file_that_grows_meanwhile_is_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "data", "tr_a", 1, os.urandom(3 << 20))

    def grow() -> None:
        with (folder / "sae_weights.safetensors").open("ab") as file:
            file.write(b"more")

    workplace = file_workplace(tmp_path, reporter=HookedReporter(title="copying", after=100, hook=grow))
    stored = back_up(workplace, 1)
    assert stored.manifest is not None
    assert stored.manifest.checkpoints is not None
    assert stored.manifest.checkpoints.vanished == ("tr_a/step-0000000001",)


def test_sweeping_keeps_what_any_backup_needs(workplace: Workplace) -> None:
    root = workplace.environment.data / "checkpoints" / "tr_a"
    write_checkpoint(workplace.environment.data, "tr_a", 1, b"one")
    first = back_up(workplace, 1)
    write_checkpoint(workplace.environment.data, "tr_a", 2, b"two")
    second = back_up(workplace, 2)
    shutil.rmtree(root / "step-0000000001")
    third = back_up(workplace, 3)
    expected = {one.id: restored(workplace, one) for one in (first, second, third)}
    assert sweep_objects(workplace.directory) == (0, 0)
    workplace.directory.remove(first.id)
    assert sweep_objects(workplace.directory) == (0, 0), "the second needs both"
    workplace.directory.remove(second.id)
    removed, size = sweep_objects(workplace.directory)
    assert removed == 2
    assert size > 0
    assert restored(workplace, third) == expected[third.id]
    assert sweep_objects(workplace.directory) == (0, 0)


@pytest.mark.parametrize(
    "harm", ["manifest cut", "manifest gone", "list changed", "list gone", "list of nothing", "a folder in its place"]
)
def test_sweeping_refuses_when_one_backup_cannot_say_what_it_needs(workplace: Workplace, harm: str) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, b"one")
    first = back_up(workplace, 1)
    back_up(workplace, 2)
    folder = workplace.directory.path(first.id)
    manifest, listing = folder / "manifest.json", folder / "objects.txt"
    orphan = object_files(workplace)[0].parent / ("0" * 64)
    orphan.write_bytes(b"nobody needs it")
    if harm == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif harm == "manifest gone":
        manifest.unlink()
    elif harm == "list changed":
        listing.write_bytes(listing.read_bytes().replace(b"1", b"2"))
    elif harm == "list gone":
        listing.unlink()
    elif harm == "list of nothing":
        listing.write_bytes(b"")
    else:
        listing.unlink()
        listing.mkdir()
    before = object_files(workplace)
    with pytest.raises(UnknownReferencesError, match=first.id):
        sweep_objects(workplace.directory)
    assert object_files(workplace) == before


def test_no_sequence_of_backups_and_sweeps_loses_an_object(tmp_path: Path) -> None:
    """A hundred and twenty random steps: whatever is listed can be restored after every one of them."""
    chance = random.Random(7)
    workplace = file_workplace(tmp_path)
    workplace.directory.prepare()
    kept: dict[str, dict[str, bytes]] = {}
    for number in range(1, 121):
        step = chance.random()
        checkpoints = sorted((tmp_path / "data").glob("checkpoints/tr_a/step-*"))
        if step < 0.35:
            write_checkpoint(tmp_path / "data", "tr_a", number, bytes([chance.randrange(6)]) * 500)
        elif step < 0.5 and checkpoints:
            shutil.rmtree(chance.choice(checkpoints))
        elif step < 0.75:
            stored = back_up(workplace, number)
            kept[stored.id] = on_disk(workplace)
        elif step < 0.9 and kept:
            gone = chance.choice(sorted(kept))
            workplace.directory.remove(gone)
            del kept[gone]
        else:
            sweep_objects(workplace.directory)
    assert len(kept) > 3
    for backup_id, files in kept.items():
        assert restored(workplace, workplace.directory.get(backup_id)) == files


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone", "empty"])
def test_a_damaged_object_is_found_and_stored_anew(workplace: Workplace, harm: str) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, os.urandom(5000))
    first = back_up(workplace, 1)
    path = max(object_files(workplace), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        content[2000] ^= 4
        path.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[harm])
    with pytest.raises(DamagedFileError):
        verify_objects(workplace.directory, first)
    workplace.directory.record(first.id, Verification("hash", BEGIN, False, "an object is damaged"))
    second = back_up(workplace, 2)
    assert restored(workplace, second) == on_disk(workplace)
    verify_objects(workplace.directory, second)


def test_what_a_kill_left_is_removed_and_written_again(workplace: Workplace) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, b"weights")
    keys = workplace.keys(writing=True)
    copy_checkpoints(workplace, keys)  # killed before the backup was published: nobody refers to these
    left = object_files(workplace)[0]
    left.write_bytes(b"garbled by a power cut")
    partial = workplace.directory.objects(keys.encryption.fingerprint) / ".partial-0011"
    partial.write_bytes(b"half")
    assert clean_objects(workplace.directory) == 1
    assert not partial.exists()
    stored = back_up(workplace, 1)
    assert restored(workplace, stored) == on_disk(workplace)


@pytest.mark.parametrize("garbled", ["", "{", "[]", '{"a": 1}', '{"a": {"stat": [1], "sha256": "x"}}'])
def test_a_garbled_note_of_what_was_seen_means_reading(workplace: Workplace, garbled: str) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, b"weights")
    back_up(workplace, 1)
    note = workplace.directory.objects(workplace.keys(writing=True).encryption.fingerprint) / "seen.json"
    assert json.loads(note.read_text())
    note.write_text(garbled)
    assert restored(workplace, back_up(workplace, 2)) == on_disk(workplace)


def test_another_key_has_objects_of_its_own(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "data", "tr_a", 1, b"weights")
    plain = file_workplace(tmp_path)
    plain.directory.prepare()
    first = back_up(plain, 1)
    encrypted = file_workplace(tmp_path, **recipient(tmp_path))
    second = back_up(encrypted, 2)
    assert restored(plain, first) == restored(encrypted, second)
    assert len({path.parent.parent.name for path in object_files(plain)}) == 2
    plain.directory.remove(first.id)
    assert sweep_objects(plain.directory)[0] == 2, "no key is needed to know what is still referred to"
    assert restored(encrypted, second) == on_disk(encrypted)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "tr_a/../../x"])
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace = file_workplace(tmp_path)
    workplace.directory.prepare()
    write_checkpoint(tmp_path / "data", "tr_a", 1, b"weights")
    copied = copy_checkpoints(workplace, workplace.keys())
    forged = type(copied.files[0])(path, 1, 1, copied.files[0].sha256)
    stored = made(workplace, 1, type(copied)((forged,), copied.objects, copied.facts))
    with pytest.raises(VerificationError, match="names"):
        read_index(workplace, stored, ())


def test_a_full_disk_leaves_nothing_half(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(workplace.environment.data, "tr_a", 1, os.urandom(1000))

    def full(source: Any, path: Path, *_: Any, **__: Any) -> Any:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_objects, "write_archive", full)
    with pytest.raises(OSError, match="No space left"):
        copy_checkpoints(workplace, workplace.keys(writing=True))
    root = workplace.directory.root / "objects"
    assert [path for path in root.rglob("*") if path.is_file()] == []
