"""Files of a backup: what is read is what was written, or an error says what is wrong."""

import dataclasses
import errno
import io
import os
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mistudio_ops.domain.backup import Encryption, FileEntry
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers.archive_file import DamagedFileError, read_archive, verify_hash, write_archive
from mistudio_ops.drivers.encryption import Keys, WrongKeyError, load_keys, opening
from mistudio_ops.errors import UsageError

CONTENT = b"".join(b"%d\ttr_%d\t%d.25\n" % (i, i % 7, i * 31) for i in range(4000))
PLAIN = Keys(Encryption())


def recipient_keys() -> Keys:
    identity = pyrage.x25519.Identity.generate()
    public = identity.to_public()
    return Keys(Encryption("age", (str(public),), fingerprint="f"), (public,), (identity,))


def written(tmp_path: Path, keys: Keys, content: bytes = CONTENT) -> tuple[Path, FileEntry]:
    path = tmp_path / ("database.dump.zst" + (".age" if keys.recipients else ""))
    path.unlink(missing_ok=True)
    return path, write_archive(io.BytesIO(content), path, "database", keys)


def content_of(path: Path, entry: FileEntry, identities: tuple[Any, ...]) -> bytes:
    sink = io.BytesIO()
    read_archive(path, entry, identities, sink)
    return sink.getvalue()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, os.urandom(3 << 20)])
def test_what_was_written_comes_back(tmp_path: Path, content: bytes, encrypted: bool) -> None:
    keys = recipient_keys() if encrypted else PLAIN
    path, entry = written(tmp_path, keys, content)
    assert content_of(path, entry, keys.identities) == content
    assert entry.size == path.stat().st_size
    assert entry.plain_size == len(content)
    assert path.stat().st_mode & 0o777 == 0o600
    verify_hash(path, entry)


@pytest.mark.parametrize("encrypted", [False, True])
def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path, encrypted: bool) -> None:
    keys = recipient_keys() if encrypted else PLAIN
    path, entry = written(tmp_path, keys, CONTENT[:120])
    sound = path.read_bytes()
    for bit in range(len(sound) * 8):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError):
            content_of(path, entry, keys.identities)
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(DamagedFileError):
            content_of(path, entry, keys.identities)
        with pytest.raises(DamagedFileError):
            verify_hash(path, entry)
    path.unlink()
    with pytest.raises(DamagedFileError, match="No such file"):
        verify_hash(path, entry)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.binary(min_size=1, max_size=40))
def test_what_was_appended_is_found(tmp_path: Path, extra: bytes) -> None:
    path, entry = written(tmp_path, PLAIN)
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(DamagedFileError):
        content_of(path, entry, ())


def test_a_changed_entry_is_found_by_the_contents_own_hash(tmp_path: Path) -> None:
    path, entry = written(tmp_path, PLAIN)
    with pytest.raises(DamagedFileError, match="content"):
        content_of(path, dataclasses.replace(entry, plain_sha256="0" * 64), ())


def test_a_wrong_key_is_not_called_damage(tmp_path: Path) -> None:
    path, entry = written(tmp_path, recipient_keys())
    with pytest.raises(WrongKeyError, match="is whole"):
        content_of(path, entry, recipient_keys().identities)


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ARG002
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_receivers_own_error_is_raised(tmp_path: Path, encrypted: bool) -> None:
    keys = recipient_keys() if encrypted else PLAIN
    path, entry = written(tmp_path, keys)
    with pytest.raises(OSError, match="No space left"):
        read_archive(path, entry, keys.identities, FullDisk())


class BrokenPipe(io.RawIOBase):
    def readinto(self, buffer: Any, /) -> int:  # noqa: ARG002
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_sources_own_error_is_raised(tmp_path: Path, encrypted: bool) -> None:
    with pytest.raises(OSError, match="Input/output"):
        write_archive(BrokenPipe(), tmp_path / "x.zst", "database", recipient_keys() if encrypted else PLAIN)


def test_a_passphrase_makes_one_key_per_directory(tmp_path: Path) -> None:
    environ = {"MISTUDIO_BACKUP_PASSPHRASE": "correct horse"}
    first = load_keys(BackupSettings(), environ, tmp_path)
    again = load_keys(BackupSettings(), environ, tmp_path)
    other = load_keys(BackupSettings(), {"MISTUDIO_BACKUP_PASSPHRASE": "another"}, tmp_path)
    assert first.encryption == again.encryption
    assert other.encryption.fingerprint != first.encryption.fingerprint
    path, entry = written(tmp_path, first)
    assert content_of(path, entry, opening(first, first.encryption, first.key_file)) == CONTENT
    bare = load_keys(BackupSettings(), environ)
    assert content_of(path, entry, opening(bare, first.encryption, first.key_file)) == CONTENT
    wrong = load_keys(BackupSettings(), {"MISTUDIO_BACKUP_PASSPHRASE": "wrong"})
    with pytest.raises(WrongKeyError, match="passphrase"):
        opening(wrong, first.encryption, first.key_file)
    with pytest.raises(WrongKeyError, match="none is at hand"):
        opening(load_keys(BackupSettings(), {}), first.encryption, first.key_file)


def test_key_files_are_private_and_hold_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("# a comment\n" + str(pyrage.x25519.Identity.generate()) + "\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others can read"):
        load_keys(BackupSettings(identity_file=path), {})
    path.chmod(0o600)
    assert len(load_keys(BackupSettings(identity_file=path), {}).identities) == 1
    path.write_text("nothing")
    with pytest.raises(UsageError, match="holds no AGE-SECRET-KEY"):
        load_keys(BackupSettings(identity_file=path), {})
    with pytest.raises(UsageError, match="cannot be read"):
        load_keys(BackupSettings(passphrase_file=tmp_path / "absent"), {})
    with pytest.raises(UsageError, match="no age recipient"):
        load_keys(BackupSettings(recipients=("age1nonsense",)), {})
    with pytest.raises(UsageError, match="both configured"):
        load_keys(BackupSettings(recipients=("age1x",)), {"MISTUDIO_BACKUP_PASSPHRASE": "x"})
