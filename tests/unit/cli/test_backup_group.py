"""``mistudio-ops backup``: a group that makes a backup when no command is named."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mistudio_ops.cli.app import app
from mistudio_ops.cli.generate import reference
from mistudio_ops.errors import ExitCode


def run(*argv: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(argv), env={"HOME": "/nonexistent", **environ}, prog_name="mistudio-ops")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mistudio.toml").write_text(
        f'[environments.lab]\nstate_dir = "{tmp_path}/lab"\n[environments.list]\nstate_dir = "{tmp_path}/list"\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    "argv",
    [
        ("-e", "lab", "--json"), ("--json", "--env=lab"), ("create", "-e", "lab", "--json"),
        ("-e", "lab", "create", "--json"), ("--json", "-e", "lab", "create"),
        ("-e", "lab", "--lock-wait", "1", "--json"),
        ("--lock-wait", "1", "create", "--json", "-e", "lab"), ("--json", "-elab"),
    ],
)  # fmt: skip
def test_every_order_makes_one(here: Path, argv: tuple[str, ...]) -> None:
    """It gets as far as finding that the environment was never deployed."""
    result = run("backup", *argv)
    assert result.exit_code == ExitCode.PRECONDITION, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "mistudio-ops/backup/1"
    assert "environment lab is not deployed" in document["error"]["message"]


@pytest.mark.parametrize(
    "argv", [("list", "--env", "lab"), ("list", "-e", "lab"), ("-e", "lab", "list"), ("--plain", "-e", "lab", "list")]
)
def test_every_order_lists(here: Path, argv: tuple[str, ...]) -> None:
    result = run("backup", *argv)
    assert result.exit_code == 0, result.output
    assert f"no backup in {here}/lab.backups" in result.stdout


def test_an_environment_may_be_called_as_a_command(here: Path) -> None:
    assert "environment list is not deployed" in run("backup", "-e", "list").stderr
    assert f"no backup in {here}/list.backups" in run("backup", "list", "-e", "list").stdout


def test_a_misspelt_command_is_none(here: Path) -> None:
    result = run("backup", "-e", "lab", "lst")
    assert result.exit_code == ExitCode.USAGE
    assert "Did you mean 'list'?" in result.stderr
    unknown = run("backup", "lab")
    assert unknown.exit_code == ExitCode.USAGE
    assert "no such command 'lab'" in unknown.stderr


def test_unknown_options_are_refused(here: Path) -> None:
    assert run("backup", "--frobnicate").exit_code == ExitCode.USAGE
    assert run("backup", "--lock-wait", "-3").exit_code == ExitCode.USAGE
    assert run("backup", "-e").exit_code == ExitCode.USAGE
    assert run("backup", "--", "list").exit_code == ExitCode.USAGE


def test_help_of_the_group_and_of_its_default() -> None:
    group, create = run("backup", "--help").stdout, run("backup", "--json", "--help").stdout
    for expected in ("create  ", "list  ", "--include", "--lock-wait", "Exit codes:"):
        assert expected in group
    assert "Usage: mistudio-ops backup create" in create
    assert "--kind" not in group + create, "it is for other commands of ours"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("backup", ""), {"create", "list"}),
        (("backup", "li"), {"list"}),
        (("backup", "--lock"), {"--lock-wait"}),
        (("backup", "--lock-wait", "3", "--pl"), {"--plain"}),
        (("backup", "-e", "la"), {"lab"}),
        (("backup", "list", "-e", "la"), {"lab"}),
    ],
)
def test_completion(here: Path, words: tuple[str, ...], expected: set[str]) -> None:
    line = " ".join(("mistudio-ops", *words))
    environ = {"_MISTUDIO_OPS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    assert expected <= set(run(**environ).stdout.split())


def test_the_reference_has_a_section_for_each() -> None:
    text = reference(typer.main.get_command(app))
    for path in ("backup", "backup create", "backup list"):
        assert f"\n## mistudio-ops {path}\n" in text
