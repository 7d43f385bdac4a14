"""What ``mistudio-ops restore`` takes together, and what it refuses before anything is looked at."""

import pytest

from mistudio_ops.cli import restore as command
from mistudio_ops.errors import UsageError
from tests.unit.cli.test_commands import run

REFUSED = [
    [],
    ["--resume", "--abort"],
    ["--undo", "--resume"],
    ["latest", "--resume"],
    ["latest", "--to-time", "2026-01-01 00:00:00+00"],
    ["--to-time", "2026-01-01 00:00:00+00", "--undo"],
    ["latest", "--to-time", "2026-01-01 00:00:00+00", "--table", "trainings"],
    ["finalize", "--undo"],
    ["--table", "trainings"],
    ["finalize", "--table", "trainings"],
    ["status", "--training", "trn_1"],
    ["latest", "--undo", "--table", "trainings"],
    ["--replace"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_does_not_go_together_is_a_usage_error(arguments: list[str]) -> None:
    done = run("restore", *arguments)
    assert done.exit_code == 2, done.stderr
    assert "mistudio-ops" in done.stderr


@pytest.mark.parametrize(
    ("backup", "flag", "expected"),
    [
        ("finalize", None, command._finalize),
        ("status", None, command._status),
        (None, "resume", command._resume),
        (None, "abort", command._abort),
        (None, "undo", command._undo),
    ],
)
def test_words_and_flags_lead_to_their_action(backup: str | None, flag: str | None, expected: object) -> None:
    flags = {"resume": False, "abort": False, "undo": False} | ({flag: True} if flag else {})
    assert command._action(backup, None, **flags) is expected


def test_without_anything_it_says_how_to_find_a_backup() -> None:
    with pytest.raises(UsageError, match="which backup") as caught:
        command._action(None, None, resume=False, abort=False, undo=False)
    assert "mistudio-ops backup list" in (caught.value.hint or "")
