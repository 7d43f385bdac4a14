"""Each command's help, and the commands that need no servers."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from mistudio_ops.cli.app import VERBS, app
from mistudio_ops.cli.generate import SHELLS, completion_script, generated_files, reference
from mistudio_ops.errors import ExitCode

ROOT = Path(__file__).parents[3]
PATHS = [*((name,) for name in VERBS if name != "config"), *(("config", name) for name in ("show", "check", "render"))]


def run(*argv: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(argv), env={"HOME": "/nonexistent", **environ}, prog_name="mistudio-ops")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_help_lists_its_exit_codes_and_has_json(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    codes = result.stdout.partition("Exit codes:\n")[2]
    for code in (0, 2, 130, 143):
        assert f" {code}  " in codes
    assert "--json" in result.stdout
    assert "--plain" in result.stdout


def test_the_summaries_are_those_of_the_list() -> None:
    listed = run("--help").stdout
    for name, verb in VERBS.items():
        assert (name in listed.split()) is not verb.hidden


def test_version(here: Path) -> None:
    assert run("--version").stdout == "mistudio-ops 0.1.0\n"
    document = json.loads(run("version", "--json").stdout)
    assert document["data"]["libraries"]["fastapi"]
    assert run("version").stdout.startswith("mistudio-ops 0.1.0, Python 3.")


def test_init_then_check_then_show(here: Path) -> None:
    assert run("init").exit_code == 0
    again = run("init")
    assert again.exit_code == ExitCode.USAGE
    assert "exists already" in again.stderr
    assert run("init", "--force", "--json").exit_code == 0
    assert "valid; environments: local" in run("config", "check").stdout
    assert run("config", "show", "--origin", "--set", "port=9000").stdout.count("flag: --set port") == 1


def test_init_prints_without_writing(here: Path) -> None:
    result = run("init", "--print")
    assert "[environments.local]" in result.stdout
    assert list(here.iterdir()) == []


def test_config_check_fails_with_everything_that_is_wrong(here: Path) -> None:
    (here / "mistudio.toml").write_text("[environments.local]\nprot = 1\n[environments.lab.server]\nlog_lvel = 1\n")
    result = run("config", "check")
    assert result.exit_code == ExitCode.USAGE
    assert "did you mean port?" in result.stderr
    assert "did you mean log_level?" in result.stderr
    assert json.loads(run("config", "check", "--json").stdout)["error"]["code"] == "configuration"


def test_config_check_warns_of_misspelt_variables(here: Path) -> None:
    result = run("config", "check", MISTUDIO_PRT="9000")
    assert result.exit_code == 0
    assert "warning: the variable MISTUDIO_PRT means nothing" in result.stderr


def test_no_password_ever_appears(here: Path) -> None:
    environ = {
        "MISTUDIO_DATABASE_URL": "postgresql://u:hunter-one@h/d",
        "MISTUDIO_REDIS_URL": "redis://:hunter-two@h:1/0",
        "MISTUDIO_STATE_DIR": str(here),
    }
    (here / "secrets.json").write_text(
        json.dumps({name: f"hunter-{name}" for name in ("database_password", "redis_password", "internal_token")})
    )
    for argv in (
        ("config", "show", "--origin"), ("config", "show", "--json"), ("config", "check"), ("config", "render", "env"),
        ("config", "render", "supervisord"), ("config", "render", "env", "--json"), ("doctor",), ("status", "-v"),
    ):  # fmt: skip
        assert "hunter" not in run(*argv, **environ).output, argv


def test_rendering_shows_what_a_deploy_would_write(here: Path) -> None:
    state = {"MISTUDIO_STATE_DIR": "/nonexistent/state"}  # every account can enter /
    assert "DATA_DIR=/nonexistent/state/data\n" in run("config", "render", "env", **state).stdout
    assert "server 127.0.0.1:9003" in run("config", "render", "nginx", "--set", "port=9000", **state).stdout
    assert "[program:worker-2]" in run("config", "render", "supervisord", "--set", "workers=2", **state).stdout
    assert list(here.iterdir()) == [], "nothing is written"
    wrong = run("config", "render", "ngin")
    assert wrong.exit_code == ExitCode.USAGE


def test_health_of_what_is_not_deployed(here: Path) -> None:
    state = {"MISTUDIO_STATE_DIR": str(here / "state")}
    result = run("health", **state)
    assert result.exit_code == ExitCode.FAILED
    assert "hint: mistudio-ops deploy local" in result.stderr
    nagios = run("health", "--nagios", **state)
    assert nagios.exit_code == 3
    assert nagios.stdout.startswith("MISTUDIO UNKNOWN - environment local is not deployed")
    assert run("health", "--watch", "--json").exit_code == ExitCode.USAGE


def test_the_reference_covers_every_command_and_is_the_same_each_time() -> None:
    text = reference(typer.main.get_command(app))
    for path in PATHS:
        assert (f"## mistudio-ops {' '.join(path)}\n" in text) is (path[0] != "generate")
    assert text == reference(typer.main.get_command(app))


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_name_the_program(shell: str) -> None:
    script = completion_script(shell)
    assert "_MISTUDIO_OPS_COMPLETE" in script
    assert script.splitlines()[0].startswith("#compdef" if shell == "zsh" else "#")


def test_generated_files_are_current() -> None:
    for name, text in generated_files().items():
        assert (ROOT / name).read_text() == text, f"{name} is stale: make generate"


def test_generating_into_a_folder_and_checking_it(here: Path) -> None:
    stale = run("generate", "--check")
    assert stale.exit_code == ExitCode.VERIFICATION
    assert "hint: make generate" in stale.stderr
    assert run("generate").exit_code == 0
    assert run("generate", "--check").exit_code == 0
    assert sorted(path.name for path in (here / "completions").iterdir()) == [
        "_mistudio-ops", "mistudio-ops.bash", "mistudio-ops.fish",
    ]  # fmt: skip
