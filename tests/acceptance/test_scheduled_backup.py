"""The nightly backup as it is installed: the crontab's own line, with cron's empty environment and no terminal."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listener import listener
from tests.support.studio import Studio, deployed_studio

pytestmark = pytest.mark.acceptance
MARKER = b"mistudio-ops backup schedule"


def _require(what: str) -> None:
    if "cron" in os.environ.get("MISTUDIO_TEST_REQUIRE", ""):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def crontab() -> Iterator[None]:
    """Our account's crontab, given back as it was."""
    if shutil.which("crontab") is None:
        _require("crontab is not installed")
    before = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    if MARKER in before.stdout:
        _require("this account has backups of a real lab in its crontab, which a test must not touch")
    try:
        yield
    finally:
        if before.returncode == 0:
            subprocess.run(["crontab", "-"], input=before.stdout, check=True)
        else:
            subprocess.run(["crontab", "-r"], capture_output=True, check=False)


def installed_line() -> str:
    """Return what cron would hand to the shell."""
    tab = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in tab.splitlines() if "mistudio_ops" in line]
    minute, hour, *stars, command = line.split(" ", 5)
    assert (minute, hour, stars) == ("0", "3", ["*", "*", "*"])
    return command.replace("\\%", "%")


def as_cron_runs_it(line: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line as cron(8) does: four variables, the home directory, /bin/sh, and no terminal."""
    account = pwd.getpwuid(os.getuid())
    variables = [f"HOME={home}", f"LOGNAME={account.pw_name}", "SHELL=/bin/sh", "PATH=/usr/bin:/bin"]
    return subprocess.run(
        ["env", "-i", *variables, "/bin/sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        cwd=home, start_new_session=True, check=False, timeout=240,
    )  # fmt: skip


def test_the_installed_line_works_is_silent_and_complains_when_it_fails(crontab: None, tmp_path: Path) -> None:
    with listener() as (address, asked), deployed_studio() as studio:
        studio.variables |= {
            "MISTUDIO_BACKUP_PASSPHRASE": 'it\'s 100% "safe" $HOME',
            "MISTUDIO_HEARTBEAT_URL": f"http://{address}/heartbeat",
            "MISTUDIO_NOTIFY_URLS": f"json://{address}/message",
            "MISTUDIO_BACKUP_TEXTFILE": str(tmp_path / "backup.prom"),
            "MISTUDIO_BACKUP_DESTINATIONS": str(tmp_path / "copies"),
        }
        (tmp_path / "copies").mkdir()
        studio.ops("backup", "schedule", "install")
        line = installed_line()
        for _ in range(2):
            done = as_cron_runs_it(line, tmp_path)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert [path for path, _ in asked] == ["/heartbeat", "/heartbeat"]
        _check_what_was_made(studio, tmp_path)
        asked.clear()
        studio.ops("down")
        failed = as_cron_runs_it(line, tmp_path)
        assert failed.returncode == 1
        assert "scheduled backup of local FAILED" in failed.stdout
        assert "failed   create" in failed.stdout
        assert "safe" not in failed.stdout + failed.stderr
        assert sorted(path for path, _ in asked) == ["/heartbeat/fail", "/message"]
        studio.ops("backup", "schedule", "remove")
        assert studio.json("backup", "schedule", "show")["installed"] == []


def _check_what_was_made(studio: Studio, tmp_path: Path) -> None:
    first, second = studio.json("backup", "list")["backups"]
    assert [first["kind"], second["kind"]] == ["scheduled", "scheduled"]
    assert first["encrypted"]
    assert second["encrypted"]
    assert first["verified"]["level"] == "restore", "the first night proves it"
    assert second["verified"]["level"] == "read", "once a week is enough"
    shown = studio.json("backup", "schedule", "show")
    assert shown["last_run"]["backup_id"] == second["id"]
    assert {stage["outcome"] for stage in shown["last_run"]["stages"]} == {"ok", "skipped"}
    assert studio.json("backup", "check")["ok"]
    assert (tmp_path / "copies" / second["id"] / "manifest.json").is_file()
    assert 'mistudio_backup_good_count{environment="local"} 2.0' in (tmp_path / "backup.prom").read_text()
