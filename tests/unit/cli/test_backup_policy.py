"""prune, pin, check and schedule on the command line: exit codes, documents, and what is refused."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mistudio_ops.domain.backup import Verification
from mistudio_ops.drivers.backup_directory import BackupDirectory
from tests.support.backups import put

NOW = datetime.now(UTC)


@pytest.fixture
def directory(tmp_path: Path) -> BackupDirectory:
    """Ten nights, the last of them restored."""
    directory = BackupDirectory(tmp_path / "state.backups")
    for night in range(10):
        last = put(directory, NOW - timedelta(days=9 - night, hours=1))
    directory.record(last.id, Verification("restore", NOW, ok=True))
    return directory


def ops(directory: BackupDirectory, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    state = directory.root.with_name("state")
    environ = {"PATH": os.environ["PATH"], "HOME": str(state.parent), "MISTUDIO_STATE_DIR": str(state), **variables}
    argv = [sys.executable, "-m", "mistudio_ops", "backup", *arguments]
    return subprocess.run(argv, env=environ, cwd=state.parent, capture_output=True, text=True, check=False, timeout=60)


def document(done: "subprocess.CompletedProcess[str]", schema: str) -> Any:
    parsed = json.loads(done.stdout)
    assert parsed["schema"] == schema
    return parsed["data"]


def test_prune_and_pin(directory: BackupDirectory) -> None:
    oldest = directory.all()[0].id
    assert ops(directory, "pin", oldest, "--reason", "the paper").stdout == f"{oldest} is pinned: the paper\n"
    dry = ops(directory, "prune", "--dry-run", "--keep-daily=2", "--keep-weekly=0", "--keep-monthly=0", "--json")
    decisions = document(dry, "mistudio-ops/backup-prune/1")["decisions"]
    assert [one["keep"] for one in decisions] == [True, *[False] * 7, True, True]
    assert decisions[0]["reasons"] == ["pinned: the paper"]
    assert len(directory.all()) == 10
    done = ops(directory, "prune", "--keep-daily", "2", "--keep-weekly", "0", "--keep-monthly", "0")
    assert (done.returncode, len(directory.all())) == (0, 3)
    assert "7 removed" in done.stdout
    assert ops(directory, "pin", oldest, "--remove").stdout == f"{oldest} is not pinned\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("prune", "--keep-daily", "0"), 2, "greater than or equal to 1"),
        (("pin", "latest", "--remove", "--reason", "x"), 2, "leave one out"),
        (("pin", "1999"), 10, "no backup '1999'"),
        (("schedule", "never"), 2, "'never' is not one of"),
        (("--scheduled", "--environment-file", "nowhere.env"), 2, "nowhere.env cannot be read"),
        (("prune", "--set", "backup.keep_daily=0"), 2, "backup.keep_daily"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = ops(BackupDirectory(tmp_path / "state.backups"), *arguments)
    assert done.returncode == code
    assert said in done.stderr


def test_prune_while_somebody_works_there(directory: BackupDirectory) -> None:
    with directory.lock():
        done = ops(directory, "prune")
    assert done.returncode == 11
    assert len(directory.all()) == 10


def test_check(directory: BackupDirectory, tmp_path: Path) -> None:
    good = ops(directory, "check", "--json")
    assert good.returncode == 0
    assert document(good, "mistudio-ops/backup-check/1")["figures"]["good"] == 10
    assert ops(directory, "check", "--nagios").stdout.startswith("MISTUDIO BACKUP OK - local: age:")
    old = ops(directory, "check", "--set", "backup.max_age_hours=1", "--nagios")
    assert (old.returncode, old.stdout.count("\n")) == (2, 1)
    assert ops(directory, "check", "--set", "backup.max_age_hours=1").returncode == 1
    nothing = ops(BackupDirectory(tmp_path / "other.backups"), "check", MISTUDIO_STATE_DIR=str(tmp_path / "other"))
    assert nothing.returncode == 1
    assert "there is no good backup" in nothing.stdout
    unknown = ops(directory, "check", "--nagios", MISTUDIO_BACKUP_MAX_AGE_HOURS="soon")
    assert (unknown.returncode, unknown.stdout[:25]) == (3, "MISTUDIO BACKUP UNKNOWN -")


def test_a_scheduled_run_that_fails_says_everything_and_remembers(directory: BackupDirectory) -> None:
    """There is no database: nobody deployed. No terminal: what a mail from cron would hold."""
    done = ops(directory, "--scheduled")
    assert done.returncode == 1
    assert "scheduled backup of local FAILED" in done.stdout
    assert "is not deployed" in done.stdout
    assert len(directory.all()) == 10, "a night without a backup removes nothing"
    shown = document(ops(directory, "schedule", "show", "--json"), "mistudio-ops/backup-schedule/1")
    assert shown["last_run"]["stages"][0]["outcome"] == "failed"
    assert ops(directory, "check").returncode == 0, "the newest one is young: a failed run is a warning"
