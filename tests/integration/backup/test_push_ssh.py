"""Copies on an SSH host: a real sshd, connections that are cut anywhere, keys that are not those one expects."""

import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mistudio_ops.drivers.destinations import DestinationError, UnreachableError
from mistudio_ops.errors import UsageError, VerificationError
from mistudio_ops.operations.backup.prune_remote import prune_remote
from mistudio_ops.operations.backup.pull import pull
from mistudio_ops.operations.backup.push import push
from mistudio_ops.operations.backup.remote import remote_backups
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.cutting_proxy import CuttingProxy
from tests.support.plain_backups import CREATED, HASTY, content_of, make_backup, reporter_of, workplace_at
from tests.support.small_disk import make_read_only, mounted
from tests.support.sshd import Sshd, find_sshd, make_key, start_sshd

pytestmark = pytest.mark.integration

CHECKPOINTS = {"tr_1/step-10/weights.safetensors": os.urandom(30_000), "tr_1/step-10/state.json": b"{}"}
PASSPHRASE = {"MISTUDIO_BACKUP_PASSPHRASE": "correct horse"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    program = find_sshd()
    if program is None:
        if "sshd" in os.environ.get("MISTUDIO_TEST_REQUIRE", "").split(","):
            pytest.fail("MISTUDIO_TEST_REQUIRE=sshd: there is no sshd on this machine")
        pytest.skip("there is no sshd on this machine")
    server = start_sshd(tmp_path_factory.mktemp("sshd"), program, getpass.getuser())
    yield server
    server.stop()


@pytest.fixture
def sshd(running: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    monkeypatch.setenv("HOME", str(running.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    running.known_hosts.unlink(missing_ok=True)
    running.trust()
    return running


@pytest.fixture
def here(tmp_path: Path) -> Workplace:
    (tmp_path / "here").mkdir()
    return workplace_at(tmp_path / "here")


@pytest.mark.parametrize("environ", [{}, PASSPHRASE], ids=["plain", "encrypted"])
def test_there_and_back(sshd: Sshd, tmp_path: Path, environ: dict[str, str]) -> None:
    url = sshd.url(tmp_path / "far" / "away")
    (tmp_path / "here").mkdir()
    here = workplace_at(tmp_path / "here", environ)
    stored = make_backup(here, os.urandom(9 << 20), checkpoints=CHECKPOINTS)
    assert push(here, "latest", [url]).pushed[0].outcome == "copied"
    warned = any("not encrypted" in text for text in reporter_of(here).warnings)
    assert warned == (not environ)
    assert push(here, "latest", [url]).pushed[0].outcome == "already there"
    assert push(here, "latest", [url], verify_only=True).pushed[0].outcome == "proven"
    (tmp_path / "new").mkdir()
    new = workplace_at(tmp_path / "new", environ)
    assert pull(new, "latest", url).objects == 2
    assert content_of(new, new.directory.get(stored.id)) == content_of(here, stored)
    assert not list((tmp_path / "far").rglob(".partial-*"))
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "far").rglob("*") if path.is_file()}
    assert modes == {0}


def test_retention_and_checkpoints_there(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = workplace_at(tmp_path / "here", now=CREATED + timedelta(days=9), keep_daily=1, keep_weekly=0, keep_monthly=0)
    url = sshd.url(tmp_path / "far")
    for day in range(3):
        make_backup(here, checkpoints={"s": b"shared", "d": b"%d" % day}, created=CREATED + timedelta(days=day))
    report = push(here, None, [url])
    assert [one.objects for one in report.pushed] == [2, 1, 1]
    done = prune_remote(here, url)
    assert done.objects == 2
    (left,) = remote_backups(here, url)
    assert left.good
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == sorted([left.id, "objects"])


def test_a_flipped_bit_there_is_found_and_mended(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    stored = make_backup(here)
    url = sshd.url(tmp_path / "far")
    push(here, "latest", [url])
    victim = tmp_path / "far" / stored.id / "database.dump.zst"
    content = bytearray(victim.read_bytes())
    content[10] ^= 4
    victim.write_bytes(content)
    with pytest.raises(VerificationError, match="damaged"):
        push(here, "latest", [url], verify_only=True)
    assert push(here, "latest", [url]).pushed[0].files == 1
    here.directory.remove(stored.id)
    assert pull(here, "latest", url).outcome == "brought"


SIZE = 400_000


@pytest.mark.parametrize("after", [0, 1, 21, 700, 1500, 3000, 20_000, 100_000, 250_000, SIZE, 405_000])
def test_a_connection_that_is_cut_once_is_mended(sshd: Sshd, tmp_path: Path, here: Workplace, after: int) -> None:
    stored = make_backup(here, os.urandom(SIZE))
    with CuttingProxy(("127.0.0.1", sshd.port), [after]) as proxy:
        sshd.trust(proxy.port)
        url = sshd.url(tmp_path / "far", port=proxy.port)
        assert push(here, stored.id, [url], patience=HASTY).pushed[0].outcome == "copied"
        assert proxy.cut == 1
    assert remote_backups(here, str(tmp_path / "far"))[0].good
    assert not list((tmp_path / "far").rglob(".partial-*"))


@pytest.mark.parametrize("after", [0, 1500, 3000, 100_000, 250_000])
def test_a_connection_that_is_always_cut_leaves_no_backup(
    sshd: Sshd, tmp_path: Path, here: Workplace, after: int
) -> None:
    stored = make_backup(here, os.urandom(SIZE))
    with CuttingProxy(("127.0.0.1", sshd.port), [after] * 50) as proxy:
        sshd.trust(proxy.port)
        url = sshd.url(tmp_path / "far", port=proxy.port)
        with pytest.raises(UnreachableError) as caught:
            push(here, stored.id, [url], patience=HASTY)
    assert caught.value.hint
    assert remote_backups(here, str(tmp_path / "far")) == []
    assert push(here, stored.id, [sshd.url(tmp_path / "far")]).pushed
    assert remote_backups(here, str(tmp_path / "far"))[0].good
    assert not list((tmp_path / "far").rglob(".partial-*"))


PUSH = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tests.support.plain_backups import workplace_at
from mistudio_ops.operations.backup.push import push
print("ready", flush=True)
push(workplace_at(Path(sys.argv[1])), "latest", [sys.argv[2]])
"""


@pytest.mark.parametrize("wait", [0.0, 0.2, 0.35, 0.5, 0.7])
def test_killed_while_pushing_the_next_push_completes_it(
    sshd: Sshd, tmp_path: Path, here: Workplace, wait: float
) -> None:
    stored = make_backup(here, os.urandom(24 << 20), checkpoints=CHECKPOINTS)
    url = sshd.url(tmp_path / "far")
    argv = [sys.executable, "-c", PUSH, str(tmp_path / "here"), url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
    assert all(one.good for one in remote_backups(here, url))
    push(here, stored.id, [url])
    (there,) = remote_backups(here, url)
    assert there.good
    assert not list((tmp_path / "far").rglob(".partial-*"))
    assert push(here, stored.id, [url], verify_only=True).pushed[0].outcome == "proven"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_end_it_ends_at_once_and_cleans_up(
    sshd: Sshd, tmp_path: Path, here: Workplace, number: int, code: int
) -> None:
    make_backup(here, os.urandom(100 << 20))
    argv = [sys.executable, "-m", "mistudio_ops", "backup", "push", "--to", sshd.url(tmp_path / "far")]
    environ = os.environ | {
        "MISTUDIO_STATE_DIR": str(tmp_path / "here" / "state"),
        "MISTUDIO_BACKUP_DIRECTORY": str(here.directory.root),
    }
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ) as process:
        deadline = time.monotonic() + 20
        while not list((tmp_path / "far").rglob(".partial-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        output = process.communicate(timeout=20)[0].decode()
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "never" not in output
    assert not [path for path in (tmp_path / "far").rglob("*") if path.is_file()]
    assert remote_backups(here, sshd.url(tmp_path / "far")) == []


def test_a_host_that_accepts_and_says_nothing(sshd: Sshd, here: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    make_backup(here)
    monkeypatch.setattr("mistudio_ops.drivers.destinations.sftp.CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match="did not answer in time"):
            push(here, "latest", [f"ssh://127.0.0.1:{port}/far"], patience=HASTY)


def test_an_unknown_host_is_not_talked_to(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    for content in (
        None,
        "other.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAabJrmJzRiHSnrEyOjlt2K6SS4bVcYxZI7aRzfRYUeP\n",
    ):
        sshd.known_hosts.unlink(missing_ok=True)
        if content:
            sshd.known_hosts.write_text(content)
        with pytest.raises(DestinationError, match="not known here") as caught:
            push(here, "latest", [sshd.url(tmp_path / "far")], patience=HASTY)
        assert caught.value.hint is not None
        assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in caught.value.hint
        assert not (tmp_path / "far").exists()


def test_a_host_with_another_key_is_not_talked_to(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    make_key(tmp_path / "impostor")
    sshd.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'impostor.pub').read_text()}")
    with pytest.raises(DestinationError, match="is another than the one in") as caught:
        push(here, "latest", [sshd.url(tmp_path / "far")], patience=HASTY)
    assert caught.value.hint is not None
    assert "ssh-keygen -R" in caught.value.hint
    assert not (tmp_path / "far").exists()


def test_the_check_of_host_keys_cannot_be_switched_off(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    config = sshd.home / ".ssh" / "config"
    config.write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    try:
        with pytest.raises(DestinationError, match="switches the check of host keys off"):
            push(here, "latest", [sshd.url(tmp_path / "far")], patience=HASTY)
    finally:
        config.unlink()


def test_names_of_the_operators_own_configuration_work(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    config = sshd.home / ".ssh" / "config"
    config.write_text(f"Host vault\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n")
    try:
        assert push(here, "latest", [f"ssh://vault{tmp_path}/far"]).pushed[0].outcome == "copied"
    finally:
        config.unlink()


def test_a_host_that_does_not_let_us_in(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    key = sshd.home / ".ssh" / "id_ed25519"
    aside = key.rename(sshd.root / "aside")
    try:
        with pytest.raises(DestinationError, match=r"does not let \w+ in") as caught:
            push(here, "latest", [sshd.url(tmp_path / "far")], patience=HASTY)
    finally:
        aside.rename(key)
    assert caught.value.hint is not None
    assert "ssh-copy-id" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
def test_a_host_that_does_not_answer(sshd: Sshd, here: Workplace, host: str) -> None:
    make_backup(here)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        push(here, "latest", [f"ssh://{host}/far"], patience=HASTY)


@pytest.mark.parametrize("folder", ["a-file", "a-file/below"])
def test_a_folder_there_that_is_none(sshd: Sshd, tmp_path: Path, here: Workplace, folder: str) -> None:
    make_backup(here)
    (tmp_path / "a-file").write_bytes(b"mine")
    with pytest.raises(DestinationError) as caught:
        push(here, "latest", [sshd.url(tmp_path / folder)], patience=HASTY)
    assert caught.value.hint
    assert (tmp_path / "a-file").read_bytes() == b"mine"


def test_a_full_disk_there(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here, os.urandom(2_000_000))
    with mounted(tmp_path / "small") as small:
        url = sshd.url(small / "far")
        with pytest.raises(DestinationError, match=r"the disk of 127\.0\.0\.1 is full") as caught:
            push(here, "latest", [url], patience=HASTY)
        assert caught.value.hint is not None
        assert "prune --at" in caught.value.hint
        assert remote_backups(here, url) == []
        assert not [path for path in small.rglob("*") if path.is_file()]


def test_a_read_only_disk_there(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    with mounted(tmp_path / "small") as small:
        make_read_only(small)
        with pytest.raises(DestinationError) as caught:
            push(here, "latest", [sshd.url(small / "far")], patience=HASTY)
        assert caught.value.hint is not None
        assert "ls -ld" in caught.value.hint


def test_a_folder_of_the_home_there(sshd: Sshd, tmp_path: Path, here: Workplace) -> None:
    make_backup(here)
    with pytest.raises(UsageError):
        push(here, "latest", ["ssh://127.0.0.1"])
    assert remote_backups(here, f"ssh://{sshd.user}@127.0.0.1:{sshd.port}/~/mistudio-no-such-folder") == []
