"""Copies in an S3-compatible store: moto's server, connections that are cut anywhere, stores that refuse."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest
from obstore.store import S3Store

from mistudio_ops.drivers.destinations import DestinationError, UnreachableError
from mistudio_ops.drivers.destinations.choose import open_destination
from mistudio_ops.errors import NothingFoundError, UsageError, VerificationError
from mistudio_ops.operations.backup.prune_remote import prune_remote
from mistudio_ops.operations.backup.pull import pull
from mistudio_ops.operations.backup.push import push
from mistudio_ops.operations.backup.remote import remote_backups
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.cutting_proxy import CuttingProxy
from tests.support.object_store import CREDENTIALS, REGION, make_bucket, refusing_store, running_store
from tests.support.plain_backups import CREATED, HASTY, content_of, make_backup, reporter_of, workplace_at

pytestmark = pytest.mark.integration

CHECKPOINTS = {"tr_1/step-10/weights.safetensors": os.urandom(30_000), "tr_1/step-10/state.json": b"{}"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_store() as found:
        yield found


@pytest.fixture
def bucket(endpoint: str) -> str:
    name = f"lab-{secrets.token_hex(6)}"
    make_bucket(endpoint, name)
    return name


@pytest.fixture
def url(endpoint: str, bucket: str) -> str:
    return url_of(endpoint, bucket)


@pytest.fixture
def here(tmp_path: Path) -> Workplace:
    (tmp_path / "here").mkdir()
    return workplace_at(tmp_path / "here", CREDENTIALS)


def url_of(endpoint: str, bucket: str, prefix: str = "backups/lab") -> str:
    return f"s3://{bucket}/{prefix}?endpoint={endpoint}&region={REGION}"


def store_of(url: str) -> S3Store:
    endpoint = url.partition("endpoint=")[2].partition("&")[0]
    return S3Store(
        urlsplit(url).hostname or "", endpoint=endpoint, region=REGION, access_key_id="test",
        secret_access_key="test-secret", client_options={"allow_http": True},
    )  # fmt: skip


def keys_in(url: str) -> list[str]:
    return sorted(one["path"] for page in obstore.list(store_of(url)) for one in page)


@pytest.mark.parametrize(
    ("prefix", "secret"),
    [("", {}), ("lab", {"MISTUDIO_BACKUP_PASSPHRASE": "correct horse"}), ("a/b c/d", {})],
    ids=["plain", "encrypted", "odd prefix"],
)
def test_there_and_back(tmp_path: Path, endpoint: str, bucket: str, prefix: str, secret: dict[str, str]) -> None:
    url = url_of(endpoint, bucket, prefix)
    (tmp_path / "here").mkdir()
    here = workplace_at(tmp_path / "here", CREDENTIALS | secret)
    stored = make_backup(here, os.urandom(9 << 20), checkpoints=CHECKPOINTS)
    first = push(here, "latest", [url]).pushed[0]
    assert (first.outcome, first.objects) == ("copied", 2)
    assert any("not encrypted" in text for text in reporter_of(here).warnings) == (not secret)
    assert push(here, "latest", [url]).pushed[0].outcome == "already there"
    (tmp_path / "new").mkdir()
    new = workplace_at(tmp_path / "new", CREDENTIALS | secret)
    assert pull(new, "latest", url).objects == 2
    assert content_of(new, new.directory.get(stored.id)) == content_of(here, stored)


def test_retention_and_checkpoints_there(tmp_path: Path, url: str) -> None:
    (tmp_path / "here").mkdir()
    here = workplace_at(
        tmp_path / "here", CREDENTIALS, now=CREATED + timedelta(days=9), keep_daily=1, keep_weekly=0, keep_monthly=0
    )
    for day in range(3):
        make_backup(here, checkpoints={"s": b"shared", "d": b"%d" % day}, created=CREATED + timedelta(days=day))
    assert [one.objects for one in push(here, None, [url]).pushed] == [2, 1, 1]
    assert prune_remote(here, url).objects == 2
    (left,) = remote_backups(here, url)
    assert left.good
    assert len([key for key in keys_in(url) if "/objects/" in key]) == 2


@pytest.mark.parametrize("file", ["database.dump.zst", "configuration.json", "objects.txt"])
def test_a_flipped_bit_or_a_missing_file_there_is_found_and_mended(
    tmp_path: Path, here: Workplace, url: str, file: str
) -> None:
    stored = make_backup(here, checkpoints=CHECKPOINTS)
    push(here, "latest", [url])
    store, key = store_of(url), f"backups/lab/{stored.id}/{file}"
    content = bytearray(bytes(obstore.get(store, key).bytes()))
    content[len(content) // 2] ^= 1
    obstore.put(store, key, bytes(content))
    with pytest.raises(VerificationError):
        push(here, "latest", [url], verify_only=True)
    (tmp_path / "new").mkdir()
    new = workplace_at(tmp_path / "new", CREDENTIALS)
    with pytest.raises(VerificationError):
        pull(new, stored.id, url)
    assert new.directory.all() == []
    assert push(here, "latest", [url]).pushed[0].files == 1
    obstore.delete(store, key)
    assert not remote_backups(here, url)[0].good
    with pytest.raises(NothingFoundError):
        pull(new, "latest", url)
    assert push(here, "latest", [url]).pushed[0].outcome == "completed"
    assert pull(new, "latest", url).outcome == "brought"


def test_only_a_manifest_there_is_listed_as_bad(here: Workplace, url: str) -> None:
    stored = make_backup(here)
    assert stored.manifest is not None
    obstore.put(store_of(url), f"backups/lab/{stored.id}/manifest.json", stored.manifest.render())
    (there,) = remote_backups(here, url)
    assert not there.good
    assert there.problem == "database.dump.zst is missing"


@pytest.mark.parametrize("after", [0, 1, 400, 900, 2_000, 100_000, 6_000_000, 8_400_000, 8_900_000])
def test_a_connection_that_is_cut_once_is_mended(here: Workplace, endpoint: str, bucket: str, after: int) -> None:
    stored = make_backup(here, os.urandom(9 << 20))
    with CuttingProxy(("127.0.0.1", urlsplit(endpoint).port or 0), [after]) as proxy:
        url = url_of(f"http://127.0.0.1:{proxy.port}", bucket)
        assert push(here, stored.id, [url], patience=HASTY).pushed[0].outcome == "copied"
        assert proxy.cut <= 1
    assert remote_backups(here, url_of(endpoint, bucket))[0].good


@pytest.mark.parametrize("after", [0, 500, 100_000, 3_000_000])
def test_a_connection_that_is_always_cut_leaves_no_backup(
    here: Workplace, endpoint: str, bucket: str, after: int
) -> None:
    stored = make_backup(here, os.urandom(9 << 20))
    url = url_of(endpoint, bucket)
    with (
        CuttingProxy(("127.0.0.1", urlsplit(endpoint).port or 0), [after] * 1000) as proxy,
        pytest.raises(UnreachableError, match="cannot be reached, or the connection was cut") as caught,
    ):
        push(here, stored.id, [url_of(f"http://127.0.0.1:{proxy.port}", bucket)], patience=HASTY)
    assert caught.value.hint
    assert remote_backups(here, url) == []
    assert push(here, stored.id, [url]).pushed[0].outcome in {"copied", "completed"}
    assert remote_backups(here, url)[0].good


PUSH = """
import sys
from pathlib import Path
from tests.support.object_store import CREDENTIALS
from tests.support.plain_backups import workplace_at
from mistudio_ops.operations.backup.push import push
print("ready", flush=True)
push(workplace_at(Path(sys.argv[1]), CREDENTIALS), "latest", [sys.argv[2]])
"""


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.25, 0.4, 0.6])
def test_killed_while_pushing_the_next_push_completes_it(
    tmp_path: Path, here: Workplace, url: str, wait: float
) -> None:
    stored = make_backup(here, os.urandom(24 << 20), checkpoints=CHECKPOINTS)
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
    assert push(here, stored.id, [url], verify_only=True).pushed[0].outcome == "proven"


def test_a_bucket_that_is_not_there(here: Workplace, endpoint: str) -> None:
    make_backup(here)
    with pytest.raises(DestinationError, match="there is no bucket nothing-here") as caught:
        push(here, "latest", [url_of(endpoint, "nothing-here")], patience=HASTY)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "InvalidAccessKeyId", DestinationError, "does not accept the credentials"),
        (403, "SignatureDoesNotMatch", DestinationError, "does not accept the credentials"),
        (400, "ExpiredToken", DestinationError, "does not accept the credentials"),
        (401, "Unauthorized", DestinationError, "does not accept the credentials"),
        (403, "RequestTimeTooSkewed", DestinationError, "clock"),
        (403, "AccessDenied", DestinationError, "refuses access to the bucket"),
        (403, "QuotaExceeded", DestinationError, "is full"),
        (507, "XMinioStorageFull", DestinationError, "is full"),
        (301, "PermanentRedirect", DestinationError, "in another region"),
        (503, "SlowDown", UnreachableError, "cannot be reached"),
        (400, "SomethingNew", DestinationError, "refuses: SomethingNew: because"),
    ],
)
def test_what_a_store_answers_is_said_in_words(
    here: Workplace, status: int, code: str, error: type[Exception], message: str
) -> None:
    make_backup(here)
    with refusing_store(status, code) as endpoint, pytest.raises(error, match=message) as caught:
        push(here, "latest", [url_of(endpoint, "lab")], patience=HASTY)
    assert "Debug source" not in str(caught.value)
    assert "test-secret" not in str(caught.value)


def test_a_store_that_does_not_answer(here: Workplace) -> None:
    make_backup(here)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        push(here, "latest", [url_of("http://127.0.0.1:1", "lab")], patience=HASTY)


def test_credentials_come_from_the_usual_files_too(tmp_path: Path, url: str) -> None:
    (tmp_path / "here").mkdir()
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    folder.joinpath("credentials").write_text("[lab]\naws_access_key_id = k\naws_secret_access_key = s%s\n")
    folder.joinpath("config").write_text("[profile lab]\nregion = eu-central-1\n")
    environ = {"HOME": str(tmp_path / "home"), "AWS_PROFILE": "lab"}
    here = workplace_at(tmp_path / "here", environ)
    make_backup(here)
    assert push(here, "latest", [url]).pushed[0].outcome == "copied"
    for wrong in ({"AWS_PROFILE": "absent"}, {"AWS_PROFILE": "", "HOME": str(tmp_path)}):
        with pytest.raises(UsageError), open_destination(url, environ | wrong):
            pass
    folder.joinpath("credentials").write_text("nonsense")
    with pytest.raises(UsageError, match="cannot be read"), open_destination(url, environ):
        pass
