"""``mistudio-ops backup`` as it is typed: as a command of its own, on a real database."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mistudio_ops.drivers.backup_directory import BackupDirectory
from tests.support.backup_workplace import fill, write_checkpoint

pytestmark = pytest.mark.integration


def ops(database_url: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    config = folder / "mistudio.toml"
    config.write_text(
        f'[environments.lab]\nstate_dir = "state"\ndata_dir = "data"\n[environments.lab.backup]\n'
        f'directory = "{folder}/kept"\n'
    )
    environ = {**os.environ, "MISTUDIO_DATABASE_URL": database_url, "MISTUDIO_CONFIG": str(config)}
    return subprocess.run(
        [sys.executable, "-m", "mistudio_ops", "backup", *arguments],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_backup_and_list(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 500)
    write_checkpoint(tmp_path / "data", "tr_a", 1, b"weights")
    made = ops(database_url, tmp_path, "-e", "lab", "--include", "checkpoints", "--json")
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert document["schema"] == "mistudio-ops/backup/1"
    data = document["data"]
    assert data["rows"] >= 502
    assert data["checkpoints"]["files"] == 2
    assert data["verified"] == "read"
    assert Path(data["path"]).parent == tmp_path / "kept"
    said = ops(database_url, tmp_path, "create", "-e", "lab", "--plain")
    assert said.returncode == 0
    assert "rows in" in said.stdout
    assert "dumping" in said.stderr
    listed = json.loads(ops(database_url, tmp_path, "--json", "-e", "lab", "list").stdout)
    assert listed["schema"] == "mistudio-ops/backup-list/1"
    assert listed["data"]["backups"][0]["id"] == data["id"]
    assert [one["good"] for one in listed["data"]["backups"]] == [True, True]
    table = ops(database_url, tmp_path, "list", "-e", "lab", "--plain").stdout
    assert data["id"] in table
    assert "2 of 2 are good" in table
    assert "planted" not in made.stdout + made.stderr


def test_what_cannot_be_used_is_listed_as_such(database_url: str, tmp_path: Path) -> None:
    made = json.loads(ops(database_url, tmp_path, "-e", "lab", "--json").stdout)["data"]
    directory = BackupDirectory(tmp_path / "kept")
    (directory.path(made["id"]) / "database.dump.zst").write_bytes(b"")
    (directory.root / "20200101T000000Z-aaaa").mkdir()
    listed = ops(database_url, tmp_path, "list", "-e", "lab", "--plain")
    assert listed.returncode == 0
    assert "0 of 2 are good" in listed.stdout
    assert "0 bytes" in listed.stdout
    assert "its manifest cannot be read" in listed.stdout


def test_another_backup_works(database_url: str, tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "kept")
    directory.prepare()
    with directory.lock():
        refused = ops(database_url, tmp_path, "-e", "lab", "--json")
    assert refused.returncode == 11
    assert json.loads(refused.stdout)["error"]["code"] == "locked"


def test_an_unknown_part(database_url: str, tmp_path: Path) -> None:
    refused = ops(database_url, tmp_path, "-e", "lab", "--include", "datasets")
    assert refused.returncode == 2
    assert "checkpoints" in refused.stderr
