"""``backup push``, ``pull``, ``list --at`` and ``prune --at`` as they are typed."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mistudio_ops.cli.app import app
from tests.support.plain_backups import CREATED, make_backup, workplace_at


def run(folder: Path, *argv: str) -> Result:
    environ = {
        "HOME": "/nonexistent",
        "MISTUDIO_STATE_DIR": str(folder / "state"),
        "MISTUDIO_BACKUP_DIRECTORY": str(folder / "backups"),
    }
    return CliRunner().invoke(app, ["backup", *argv], env=environ, prog_name="mistudio-ops")


def document(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    workplace = workplace_at(folder)
    for day in range(2):
        make_backup(workplace, b"%d" % day, created=CREATED + timedelta(days=day))
    return folder


def test_from_push_to_pull(lab: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "far")
    pushed = run(lab, "push", "--to", url, "--json")
    assert pushed.exit_code == 0, pushed.output
    said = document(pushed)
    assert said["schema"] == "mistudio-ops/backup-push/1"
    assert [one["outcome"] for one in said["data"]["pushed"]] == ["copied"]
    assert [one["outcome"] for one in document(run(lab, "push", "--all", "--to", url, "--json"))["data"]["pushed"]] == [
        "copied",
        "already there",
    ]
    listed = document(run(lab, "list", "--at", url, "--json"))["data"]
    assert [one["good"] for one in listed["backups"]] == [True, True]
    (tmp_path / "new").mkdir()
    pulled = run(tmp_path / "new", "pull", "latest", "--from", url, "--json")
    assert pulled.exit_code == 0, pulled.output
    assert document(pulled)["schema"] == "mistudio-ops/backup-pull/1"
    text = run(tmp_path / "new", "pull", "latest", "--from", url, "--plain")
    assert "it was here already" in text.stdout
    assert "mistudio-ops restore" in text.stdout


def test_pruning_there(lab: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "far")
    run(lab, "push", "--all", "--to", url)
    options = ("--at", url, "--keep-daily", "1", "--keep-weekly", "0", "--keep-monthly", "0")
    planned = document(run(lab, "prune", "--dry-run", *options, "--json"))["data"]
    assert [one["keep"] for one in planned["copies"]] == [False, True]
    assert len(document(run(lab, "list", "--at", url, "--json"))["data"]["backups"]) == 2
    done = run(lab, "prune", *options)
    assert done.exit_code == 0
    assert len(document(run(lab, "list", "--at", url, "--json"))["data"]["backups"]) == 1


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("push",), 2, "there is no destination"),
        (("push", "2026", "--all", "--to", "/x"), 2, "--all and an id are both given"),
        (("push", "--to", "ftp://x/y"), 2, "names no place"),
        (("push", "no-such", "--to", "/tmp/x"), 10, "no backup"),
        (("push", "--to", "/no/such/folder/x"), 13, "does not exist"),
        (("pull", "latest"), 2, "--from"),
        (("pull", "latest", "--from", "/nonexistent/x"), 10, "there is no backup"),
        (("push", "--to", "/no/such/folder/x", "--to", "/no/such/folder/y"), 1, "does not exist"),
    ],
)
def test_exit_codes(lab: Path, argv: tuple[str, ...], code: int, message: str) -> None:
    result = run(lab, *argv)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_done_in_part(lab: Path, tmp_path: Path) -> None:
    result = run(lab, "push", "--to", str(tmp_path / "far"), "--to", "/no/such/folder/x", "--json")
    assert result.exit_code == 3
    said = document(result)
    assert said["ok"] is False
    assert [one["url"] for one in said["data"]["failed"]] == ["/no/such/folder/x"]


def test_a_damaged_copy_is_exit_code_12(lab: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "far")
    run(lab, "push", "--to", url)
    victim = min((tmp_path / "far").rglob("database.dump.zst"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    result = run(lab, "push", "--verify-only", "--to", url)
    assert result.exit_code == 12
    assert "is damaged" in result.output
