"""A backup that is killed at any of its actions is not there; a prune that is killed loses nothing that is good."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

#: How many actions lie between two kills here; ``python -m tests.support.killed_backup ... 1 1`` tries every one.
EVERY = 3


def run(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.support.{program}", *arguments],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_no_kill_leaves_a_bad_backup_that_is_listed(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "checkpoints" / "tr_1" / "step-0000000100"
    folder.mkdir(parents=True)
    for name in ("sae_weights.safetensors", "state.json"):
        (folder / name).write_bytes(name.encode() * 100)
    seen = run("killed_backup", database_url, str(tmp_path), "1", str(EVERY))
    assert seen["wrong"] == []
    assert seen["backups"] >= 1
    assert seen["actions"] > 5


def test_a_disk_that_is_full_at_any_byte_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    seen = run("full_disk_backup", database_url, str(tmp_path), "900")
    assert seen["wrong"] == []
    assert seen["failed"] == seen["tried"] - 1 > 5
