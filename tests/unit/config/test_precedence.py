"""Flags win over variables, those over the file, that over defaults; and each value knows where it is from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mistudio_ops.config.resolve import Origin, default_state_dir, resolve_environment
from mistudio_ops.domain.environment import Environment
from tests.unit.config.conftest import Resolve

Write = Callable[[str], Path]


def test_local_exists_without_a_file(resolve: Resolve) -> None:
    resolved = resolve()
    assert resolved.environment == Environment("local", Path("/home/someone/.local/state/mistudio/local"))
    assert set(resolved.origins.values()) == {Origin("default", "")}
    assert resolved.file is None


def test_precedence_and_origins(resolve: Resolve, write: Write) -> None:
    file = write("[environments.local]\nport = 9000\nbackends = 2\nworkers = 3\n")
    resolved = resolve("local", "port=9200", MISTUDIO_PORT="9100", MISTUDIO_BACKENDS="5")
    environment, origins = resolved.environment, resolved.origins
    assert (environment.port, environment.backends, environment.workers) == (9200, 5, 3)
    assert origins["port"] == Origin("flag", "--set port")
    assert origins["backends"] == Origin("environment", "MISTUDIO_BACKENDS")
    assert origins["workers"] == Origin("file", f"{file}: environments.local.workers")
    assert origins["host"] == Origin("default", "")


def test_server_settings_merge_key_by_key(resolve: Resolve, write: Write) -> None:
    write(
        """
        [environments.local.server]
        training_slots = 2
        LOG_LEVEL = "debug"
        cors_origins = ["https://a.example", "https://b.example"]
        db_pool_pre_ping = false
        """
    )
    resolved = resolve("local", "server.log_format=console", MISTUDIO_SERVER_TRAINING_SLOTS="4")
    assert resolved.environment.server == {
        "TRAINING_SLOTS": "4",
        "LOG_LEVEL": "debug",
        "CORS_ORIGINS": "https://a.example,https://b.example",
        "DB_POOL_PRE_PING": "false",
        "LOG_FORMAT": "console",
    }
    assert resolved.origins["server.training_slots"] == Origin("environment", "MISTUDIO_SERVER_TRAINING_SLOTS")
    assert resolved.origins["server.log_level"].kind == "file"


def test_paths_are_relative_to_what_names_them(resolve: Resolve, write: Write, tmp_path: Path) -> None:
    write('[environments.local]\nstate_dir = "state"\ndata_dir = "../shared"\n')
    deeper = tmp_path / "a" / "b"
    deeper.mkdir(parents=True)
    environ = {"MISTUDIO_DATA_DIR": "mine", "HOME": "/home/someone"}
    environment = resolve_environment("local", environ=environ, cwd=deeper).environment
    assert environment.state_dir == tmp_path / "state", "the file's folder, found upwards"
    assert environment.data == deeper / "mine", "the current folder"
    assert resolve().environment.data == tmp_path.parent / "shared"


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"HOME": "/root"}, "/var/lib/mistudio/lab"),
        (7, {"HOME": "/h"}, "/h/.local/state/mistudio/lab"),
        (7, {"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/mistudio/lab"),
        (7, {"HOME": "/h", "XDG_STATE_HOME": "relative/is/invalid"}, "/h/.local/state/mistudio/lab"),
    ],
)
def test_default_state_dir(uid: int, environ: dict[str, str], expected: str) -> None:
    assert default_state_dir("lab", environ, lambda: uid) == Path(expected)


def test_the_file_can_be_named(resolve: Resolve, tmp_path: Path, write: Write) -> None:
    write("[environments.local]\nport = 9000\n")
    other = tmp_path / "other.toml"
    other.write_text("[environments.lab]\nport = 9100\n")
    assert resolve("lab", MISTUDIO_CONFIG=str(other)).environment.port == 9100
    environ = {"MISTUDIO_CONFIG": "/nonexistent"}
    resolved = resolve_environment("lab", environ=environ, cwd=tmp_path, config=Path("other.toml"))
    assert resolved.environment.port == 9100
    assert resolved.file == other


def test_empty_variables_mean_nothing(resolve: Resolve) -> None:
    assert resolve(MISTUDIO_PORT="").environment.port == 8700


def test_the_shells_server_variables_do_not_leak_in(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINING_SLOTS", "nonsense")
    monkeypatch.setenv("DATABASE_URL", "mysql://x")
    assert resolve("local", "server.log_level=debug").environment.server == {"LOG_LEVEL": "debug"}


def test_passwords_of_urls_are_secrets(resolve: Resolve) -> None:
    resolved = resolve(
        MISTUDIO_DATABASE_URL="postgresql://u:p%40ss-word@h/d", MISTUDIO_REDIS_URL="redis://:redis-pw@h/0"
    )
    assert resolved.environment.database_url == "postgresql+psycopg://u:p%40ss-word@h/d"
    assert set(resolved.secrets) == {"p%40ss-word", "p@ss-word", "redis-pw"}


def test_generated_secrets_are_known(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"database_password": "generated-1", "internal_token": "generated-2"}')
    assert set(resolve(MISTUDIO_STATE_DIR=str(tmp_path)).secrets) == {"generated-1", "generated-2"}


def test_a_public_address_needs_tokens(resolve: Resolve) -> None:
    environment = resolve("local", "host=0.0.0.0", "server.auth_required=true").environment
    assert environment.host == "0.0.0.0"
    assert resolve("local", "host=localhost").environment.host == "127.0.0.1"
