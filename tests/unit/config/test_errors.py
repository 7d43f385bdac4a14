"""What is wrong, where, with which value, and what was probably meant."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mistudio_ops.config.problems import ConfigurationError
from mistudio_ops.config.resolve import resolve_environment
from mistudio_ops.errors import ExitCode, UsageError
from tests.unit.config.conftest import Resolve

Write = Callable[[str], Path]
LOCAL = "[environments.local]\n"
SERVER = "[environments.local.server]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LOCAL + "prot = 1", "environments.local.prot = 1: unknown key; did you mean port?"),
        (LOCAL + "PORT = 1", "environments.local.PORT = 1: unknown key; did you mean port?"),
        (LOCAL + "xyzzy = 1", "environments.local.xyzzy = 1: unknown key; known are engine, host, port"),
        ("[environment.local]\n", "environment: unknown key; did you mean environments?"),
        ("environments = 3", "environments = 3: it must be a table: [environments]"),
        ("[environments]\nlocal = 3", "environments.local = 3: it must be a table: [environments.local]"),
        ("[environments.Big_Name]", "environments.Big_Name: an environment's name is small letters"),
        (LOCAL + 'port = "many"', "environments.local.port = 'many': it must be a whole number"),
        (LOCAL + "port = 1.5", "environments.local.port = 1.5: it must be a whole number"),
        (LOCAL + "port = 80", "environments.local.port = 80: it must be greater than or equal to 1024"),
        (LOCAL + "port = 65500", "environments.local.port = 65500: it must be less than or equal to 65493"),
        (LOCAL + "backends = 0", "environments.local.backends = 0: it must be greater than or equal to 1"),
        (LOCAL + "backends = 21", "environments.local.backends = 21: it must be less than or equal to 20"),
        (LOCAL + 'engine = "docker"', "environments.local.engine = 'docker': it must be 'process'"),
        (LOCAL + 'prefer = "apt"', "environments.local.prefer = 'apt': it must be 'system' or 'embedded'"),
        (LOCAL + 'host = "lab.example"', "environments.local.host = 'lab.example': it must be an IP address"),
        (LOCAL + 'database_url = "mysql://x"', "environments.local.database_url: it must look like postgresql+psycopg"),
        (LOCAL + 'redis_url = "http://x"', "environments.local.redis_url: it must look like redis://"),
        (LOCAL + "state_dir = 3", "environments.local.state_dir = 3: "),
        (SERVER + "training_slot = 2", "server.training_slot = 2: unknown setting; did you mean training_slots?"),
        (SERVER + "training_slots = 0", "environments.local.server.training_slots = 0: it must be greater than"),
        (SERVER + 'log_level = "loud"', "environments.local.server.log_level = 'loud': it must be 'debug', 'info'"),
        (SERVER + 'cors_origins = ["*"]', "environments.local.server.cors_origins: CORS_ORIGINS takes exact origins"),
        (SERVER + "port = 9", "environments.local.server.port = 9: mistudio-ops sets this itself: use port of the"),
        (SERVER + 'data_dir = "/x"', "mistudio-ops sets this itself: use data_dir of the environment"),
        (SERVER + 'redis_prefix = "x"', "mistudio-ops sets this itself: it is made of the environment's name"),
        (SERVER + "x = {a = 1}", "environments.local.server.x: unknown setting"),
        (SERVER + "log_level = {a = 1}", "environments.local.server.log_level: a setting is a single value"),
        ("[environments.lab]\nbackends = 99\n" + LOCAL, "environments.lab.backends = 99: it must be less"),
    ],
)  # fmt: skip
def test_a_wrong_file(text: str, expected: str, resolve: Resolve, write: Write) -> None:
    path = write(text)
    with pytest.raises(ConfigurationError) as caught:
        resolve()
    assert expected in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint


def test_all_problems_are_told_at_once(resolve: Resolve, write: Write) -> None:
    write(LOCAL + "prot = 1\nbackends = 0\n" + SERVER + "training_slot = 1\nlog_lvel = 2\n")
    with pytest.raises(ConfigurationError) as caught:
        resolve()
    assert [problem.key.rsplit(".", 1)[-1] for problem in caught.value.problems] == [
        "backends", "prot", "training_slot", "log_lvel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LOCAL + 'database_url = "postgresql://u:planted-secret@h/d"', "MISTUDIO_DATABASE_URL"),
        (LOCAL + 'redis_url = "redis://:planted-secret@h"', "MISTUDIO_REDIS_URL"),
        (LOCAL + 'database_url = "mysql://u:planted-secret@h/d"', "postgresql+psycopg"),
        (SERVER + 'database_url = "postgresql://u:planted-secret@h/d"', "MISTUDIO_DATABASE_URL"),
        (SERVER + 'internal_token = "planted-secret"', "a deploy generates it"),
        (LOCAL + 'password = "planted-secret"', "unknown key"),
    ],
)
def test_secrets_are_refused_and_not_repeated(text: str, key: str, resolve: Resolve, write: Write) -> None:
    write(text)
    with pytest.raises(ConfigurationError) as caught:
        resolve()
    assert key in caught.value.message
    assert "planted" not in f"{caught.value.message}{caught.value.hint}{caught.value.problems}"


@pytest.mark.parametrize(
    ("overrides", "environ", "expected"),
    [
        ((), {"MISTUDIO_PORT": "abc"}, "MISTUDIO_PORT: port = 'abc': it must be a whole number"),
        ((), {"MISTUDIO_BACKENDS": "99"}, "MISTUDIO_BACKENDS: backends = '99': it must be less"),
        ((), {"MISTUDIO_SERVER_LOG_LEVEL": "loud"}, "MISTUDIO_SERVER_LOG_LEVEL: server.log_level = 'loud'"),
        ((), {"MISTUDIO_SERVER_LOG_LVEL": "x"}, "MISTUDIO_SERVER_LOG_LVEL: server.log_lvel = 'x': unknown setting"),
        (("port=abc",), {}, "--set: port = 'abc'"),
        (("prot=1",), {}, "--set: prot = 1: unknown key; did you mean port?"),
        (("server.training_slots=0",), {}, "--set: server.training_slots = '0'"),
        (("port",), {}, "--set port: it takes KEY=VALUE"),
        (("host=0.0.0.0",), {}, "--set: host = '0.0.0.0': others could reach it without a token"),
        (("host=::", "server.auth_required=false"), {}, "others could reach it without a token"),
    ],
)
def test_wrong_flags_and_variables(
    overrides: tuple[str, ...], environ: dict[str, str], expected: str, resolve: Resolve
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("local", *overrides, **environ)
    assert expected in caught.value.message


def test_broken_toml_names_file_and_line(resolve: Resolve, write: Write) -> None:
    path = write("[environments.local]\nport = oops\n")
    with pytest.raises(UsageError, match=f"{path} is not valid TOML: .*line 2"):
        resolve()


def test_bytes_that_are_no_text(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "mistudio.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        resolve()


def test_a_named_file_must_exist(resolve: Resolve, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MISTUDIO_CONFIG names .*nope\.toml, which is not a file"):
        resolve(MISTUDIO_CONFIG="nope.toml")
    with pytest.raises(UsageError, match="--config names"):
        resolve_environment("local", environ={}, cwd=tmp_path, config=Path("nope.toml"))


def test_an_unknown_environment_names_the_nearest(resolve: Resolve, write: Write) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("prod")
    assert caught.value.message == "no environment 'prod' and no mistudio.toml here or above; there is local"
    assert caught.value.hint == "mistudio-ops init, then add [environments.prod]"
    path = write("[environments.lab-server]\n")
    with pytest.raises(UsageError) as caught:
        resolve("labserver")
    assert caught.value.message == f"no environment 'labserver' in {path}; there are lab-server, local"
    assert caught.value.hint == f"did you mean lab-server? Otherwise add [environments.labserver] to {path}"
    assert caught.value.exit_code == ExitCode.USAGE
