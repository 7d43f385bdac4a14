"""Sizes, variables, units, state directories: the pure parts of the process engine."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mistudio_ops.domain.environment import Environment, EnvironmentPaths
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.sizing import WORKER_CONNECTIONS, connections
from mistudio_ops.domain.units import Unit, kind_of
from mistudio_ops.domain.variables import environment_file, server_variables
from mistudio_ops.engines.state_files import check_state_dir, is_ours, known_entries
from mistudio_ops.errors import PreconditionError
from mistudio_server.settings import Settings

SECRETS = SecretValues("admin-pw", "p@ss/w:rd", "r3d1s", "t0ken")
LOCAL = Environment(name="local", state_dir=Path("/srv/studio"), port=8800)


@pytest.mark.parametrize("backends", [1, 3, 20])
@pytest.mark.parametrize("server", [{}, {"DB_POOL_SIZE": "20", "DB_MAX_OVERFLOW": "40"}])
def test_the_pools_of_all_processes_fit_max_connections(backends: int, server: dict[str, str]) -> None:
    environment = replace(LOCAL, backends=backends, workers=2, server=server)
    sizes = connections(environment)
    assert backends * (sizes.pool_size + sizes.max_overflow) + 2 * WORKER_CONNECTIONS < sizes.maximum


def test_the_server_reads_its_variables_back() -> None:
    variables = server_variables(LOCAL, SECRETS)
    settings = Settings(**{name.lower(): value for name, value in variables.items()})
    assert settings.database_url.get_secret_value() == (
        "postgresql+psycopg://mistudio:p%40ss%2Fw%3Ard@127.0.0.1:8841/mistudio"
    )
    assert settings.redis_url.get_secret_value().endswith("@127.0.0.1:8842/0")
    assert settings.redis_ws_url.get_secret_value().endswith("@127.0.0.1:8842/1")
    assert settings.redis_prefix == "mistudio:local"
    assert settings.data_dir == Path("/srv/studio/data")


def test_a_proxy_open_to_the_network_makes_tokens_required() -> None:
    # The backends are bound to loopback behind it, and would otherwise let everybody in.
    assert "AUTH_REQUIRED" not in server_variables(LOCAL, SECRETS)
    for host in ("0.0.0.0", "192.168.1.5", "::", "lab.example"):
        assert server_variables(replace(LOCAL, host=host), SECRETS)["AUTH_REQUIRED"] == "true"


def test_configured_urls_are_used_as_they_are() -> None:
    environment = replace(
        LOCAL, database_url="postgresql+psycopg://a:b@db/x", redis_url="rediss://:pw@store:6380/3?ssl_cert_reqs=none"
    )
    variables = server_variables(environment, SECRETS)
    assert variables["DATABASE_URL"] == "postgresql+psycopg://a:b@db/x"
    assert variables["REDIS_WS_URL"] == "rediss://:pw@store:6380/4?ssl_cert_reqs=none"
    assert "DB_POOL_SIZE" not in variables


def test_an_operator_has_the_last_word() -> None:
    assert server_variables(replace(LOCAL, server={"LOG_LEVEL": "debug"}), SECRETS)["LOG_LEVEL"] == "debug"


def test_a_shell_can_source_the_environment_file() -> None:
    environment = replace(LOCAL, server={"CORS_ORIGINS": "https://a.example", "ODD": "a b'c$(touch /tmp/x)`d`\"e"})
    text = environment_file(environment, SECRETS)
    done = subprocess.run(
        ["sh", "-c", f"set -a\n{text}\nset +a\nprintf '%s|%s' \"$ODD\" \"$DATABASE_URL\""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    odd, _, url = done.stdout.partition("|")
    assert odd == environment.server["ODD"]
    assert url == server_variables(environment, SECRETS)["DATABASE_URL"]


def test_an_environment_file_never_holds_a_line_break() -> None:
    with pytest.raises(ValueError, match="line break"):
        environment_file(replace(LOCAL, server={"ODD": "a\nEVIL=1"}), SECRETS)


def test_secrets_do_not_print() -> None:
    assert "admin-pw" not in f"{SECRETS!r} {SECRETS}"


def test_a_unit_survives_its_own_document() -> None:
    unit = Unit("backend-1", "backend", ("/bin/x", "run"), {"A": "1"}, "/", ports=(1, 2), uid=5, gid=6)
    assert Unit.parse(json.loads(unit.document())) == unit
    assert Unit.parse(json.loads(unit.document())).digest == unit.digest
    assert replace(unit, environment={"A": "2"}).digest != unit.digest


@pytest.mark.parametrize(("name", "kind"), [("backend-12", "backend"), ("proxy", "proxy"), ("stranger", None)])
def test_a_units_name_tells_its_kind(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_a_state_directory_that_is_too_deep_for_sockets_is_refused() -> None:
    check_state_dir(EnvironmentPaths(Path("/" + "x" * 75)))
    with pytest.raises(PreconditionError, match="unix sockets") as caught:
        check_state_dir(EnvironmentPaths(Path("/" + "x" * 90)))
    assert "x" * 90 in caught.value.message
    assert "MISTUDIO_STATE_DIR" in (caught.value.hint or "")


@pytest.mark.parametrize("odd", [" ", ";", "'", '"', "$", "%", "\n", "\t", "{", "*"])
def test_a_state_directory_with_odd_characters_is_refused(odd: str) -> None:
    with pytest.raises(PreconditionError, match="characters"):
        check_state_dir(EnvironmentPaths(Path(f"/srv/a{odd}b")))


def test_what_we_make_is_known() -> None:
    assert ".env.local" in known_entries("local")
    assert ".env.other" not in known_entries("local")


def test_what_a_killed_deploy_left_half_written_is_ours() -> None:
    assert is_ours(".secrets.json.4711.partial", "local")
    assert is_ours("..env.local.4711.partial", "local")
    assert not is_ours(".thesis.4711.partial", "local")
    assert not is_ours("secrets.json.bak", "local")
