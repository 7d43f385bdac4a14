"""The command line against real servers: migrate, check, token, and what is said when settings are wrong."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from mistudio_server.settings import Settings
from tests.integration.api.test_serving import command, variables
from tests.support.servers import free_port

pytestmark = pytest.mark.integration


def execute(settings: Settings, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        env=variables(settings, **changes),
        cwd=settings.data_dir,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DATABASE_URL", "postgresql://me:hunter2@localhost/x", "postgresql+psycopg://"),
        ("REDIS_URL", "http://:hunter2@localhost", "redis://"),
        ("PORT", "70000", "PORT='70000'"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud'"),
        ("CORS_ORIGINS", "*", "exact origins"),
        ("AUTH_REQUIRED", "perhaps", "AUTH_REQUIRED='perhaps'"),
    ],
)
def test_a_wrong_setting_is_named(settings: Settings, variable: str, value: str, told: str) -> None:
    ended = execute(settings, "run", **{variable: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert variable in ended.stderr
    assert told in ended.stderr
    assert "hunter2" not in ended.stderr


def test_tokenless_on_every_address_is_refused(settings: Settings) -> None:
    ended = execute(settings, "run", AUTH_REQUIRED="false", HOST="0.0.0.0")
    assert ended.returncode == 2
    assert "AUTH_REQUIRED=false" in ended.stderr


def test_migrate(settings: Settings, empty_database_url: str) -> None:
    def migrate(*arguments: str) -> tuple[int, Any]:
        ended = execute(settings, "migrate", "--json", *arguments, DATABASE_URL=empty_database_url)
        return ended.returncode, json.loads(ended.stdout)

    assert migrate("--check") == (1, {"current": None, "head": "0001", "at_head": False})
    assert migrate() == (0, {"current": "0001", "head": "0001", "at_head": True})
    assert migrate("--check")[0] == 0
    assert migrate("--to", "base") == (0, {"current": None, "head": "0001", "at_head": False})


def test_migrate_to_nowhere(settings: Settings) -> None:
    ended = execute(settings, "migrate", "--to", "9999")
    assert ended.returncode == 1
    assert "9999" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments", [("migrate",), ("token", "list"), ("token", "create", "--name", "x")], ids=" ".join
)
def test_no_database(settings: Settings, arguments: tuple[str, ...]) -> None:
    url = make_url(settings.database_url.get_secret_value()).set(port=free_port())
    ended = execute(settings, *arguments, DATABASE_URL=url.render_as_string(hide_password=False))
    assert ended.returncode == 1
    assert "DATABASE_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert str(url.password) not in ended.stderr


def test_check(settings: Settings) -> None:
    names = ["database", "migrations", "partitions", "redis"]
    ended = execute(settings, "check", "--json", *(part for name in names for part in ("--only", name)))
    document = json.loads(ended.stdout)
    assert ended.returncode == 0, document
    assert document["ok"] is True
    assert [check["name"] for check in document["checks"]] == names
    assert set(document["checks"][0]) == {"name", "ok", "latency_ms", "evidence", "hint"}


def test_check_without_a_worker(settings: Settings) -> None:
    ended = execute(settings, "check", "--only", "worker", "--json", "--timeout", "2")
    document = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert "answer" in document["checks"][0]["evidence"]
    assert document["checks"][0]["hint"]


def test_check_of_an_unknown_name(settings: Settings) -> None:
    ended = execute(settings, "check", "--only", "luck")
    assert ended.returncode == 2
    assert "known: database" in ended.stderr


def test_tokens(settings: Settings) -> None:
    made = execute(settings, "token", "create", "--name", "ci", "--scopes", "read,write", "--expires-days", "3")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("mst_")
    rows = json.loads(execute(settings, "token", "list", "--json").stdout)["items"]
    assert rows[0]["scopes"] == ["read", "write"]
    assert secret not in str(rows)
    assert execute(settings, "token", "revoke", rows[0]["id"]).returncode == 0
    assert "revoked" in execute(settings, "token", "list").stdout
    missing = execute(settings, "token", "revoke", "tok_none")
    assert missing.returncode == 1
    assert "tok_none" in missing.stderr


@pytest.mark.parametrize("scopes", ["root", "", "read,root"])
def test_unknown_scopes(settings: Settings, scopes: str) -> None:
    ended = execute(settings, "token", "create", "--name", "x", "--scopes", scopes)
    assert ended.returncode == 2
    assert "read, write, admin" in ended.stderr


def test_openapi(settings: Settings, tmp_path: Path) -> None:
    document = json.loads(execute(settings, "openapi").stdout)
    assert document["paths"]["/api/v1/trainings"]["post"]["operationId"] == "create_training"


def test_help_names_every_command(settings: Settings) -> None:
    told = execute(settings, "--help").stdout
    for name in ("run", "worker", "beat", "migrate", "check", "token", "openapi"):
        assert name in told
