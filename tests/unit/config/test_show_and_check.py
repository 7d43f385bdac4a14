"""``config show``, ``config check`` and the example that ``init`` writes."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from mistudio_ops.config.file import load_file
from mistudio_ops.config.model import BackupTable, ConfigFile, EnvironmentTable
from mistudio_ops.config.problems import ConfigurationError
from mistudio_ops.config.server_settings import known_settings, server_problems
from mistudio_ops.domain.configuration import CheckedConfiguration
from mistudio_ops.errors import OpsError, UsageError
from mistudio_ops.operations.config_check import check_configuration
from mistudio_ops.operations.config_show import show_configuration
from mistudio_ops.operations.init import example, write_example
from mistudio_ops.presentation.configuration import checked_result, shown_result
from tests.unit.config.conftest import Resolve

Write = Callable[[str], Path]


def check(folder: Path, **environ: str) -> CheckedConfiguration:
    return check_configuration(environ={"HOME": "/h", **environ}, cwd=folder, euid=lambda: 1000)


def test_show_masks_passwords_and_keeps_the_rest(resolve: Resolve) -> None:
    shown = show_configuration(
        resolve("local", "server.log_level=debug", MISTUDIO_DATABASE_URL="postgresql://u:pw@h/d")
    )
    values = {value.key: value.value for value in shown.values}
    assert values["database_url"] == "postgresql+psycopg://u:********@h/d"
    assert values["data_dir"] == "/home/someone/.local/state/mistudio/local/data"
    assert values["redis_url"] is None
    assert values["port"] == 8700
    assert values["server.log_level"] == "debug"


def test_origins_are_a_column_on_request(resolve: Resolve) -> None:
    shown = show_configuration(resolve("local", "port=9000"))
    assert shown_result(shown, origin=True).blocks[1].columns == ("key", "value", "origin")
    assert ("port", "9000", "flag: --set port") in shown_result(shown, origin=True).blocks[1].rows
    assert ("port", "9000") in shown_result(shown, origin=False).blocks[1].rows


def test_a_valid_configuration(write: Write, tmp_path: Path) -> None:
    path = write("[environments.lab]\nport = 9000\n")
    checked = check(tmp_path, MISTUDIO_PORT="9000", MISTUDIO_STATE_DIR="/one")
    assert checked == CheckedConfiguration(str(path), ["lab", "local"], [])
    assert checked_result(checked).blocks[0].text == f"{path}: valid; environments: lab, local"


def test_environments_must_not_share_ports_or_folders(write: Write, tmp_path: Path) -> None:
    write('[environments.a]\nstate_dir = "s"\n[environments.b]\nport = 9000\nstate_dir = "s/../s"\n')
    with pytest.raises(ConfigurationError) as caught:
        check(tmp_path)
    assert [(problem.key, problem.value) for problem in caught.value.problems] == [
        ("environments.b.state_dir", str(tmp_path / "s")),
        ("environments.local.port", "8700"),
    ]


def test_misspelt_variables_are_warned_of(tmp_path: Path) -> None:
    checked = check(tmp_path, MISTUDIO_BACKNDS="1", MISTUDIO_ENV="local", MISTUDIO_PORT="9000", MISTUDIO_ZZZ="1")
    assert checked.warnings == [
        "the variable MISTUDIO_BACKNDS means nothing to mistudio-ops; did you mean MISTUDIO_BACKENDS?",
        "the variable MISTUDIO_ZZZ means nothing to mistudio-ops",
    ]


def uncommented() -> str:
    return re.sub(r"^#(?=[a-z_]+ = )", "", example(), flags=re.MULTILINE)


def test_the_example_is_valid_as_it_is_and_with_everything_uncommented() -> None:
    assert ConfigFile.model_validate(tomllib.loads(example())).environments["local"].model_fields_set == {
        "server",
        "backup",
    }
    table = ConfigFile.model_validate(tomllib.loads(uncommented())).environments["local"]
    assert table.model_fields_set == set(EnvironmentTable.model_fields), "every key is in the example"
    assert table.backup.model_fields_set == set(BackupTable.model_fields), "every key is in the example"
    assert server_problems(table.server, lambda key: ("example", key)) == []
    assert set(table.server) <= set(known_settings())


def test_the_examples_defaults_are_the_defaults() -> None:
    table = ConfigFile.model_validate(tomllib.loads(uncommented())).environments["local"]
    for key in ("engine", "host", "port", "backends", "workers", "prefer"):
        assert getattr(table, key) == EnvironmentTable.model_fields[key].default, key
    for key in ("keep_daily", "keep_weekly", "keep_monthly", "keep_pre_days", "at", "max_age_hours"):
        assert getattr(table.backup, key) == BackupTable.model_fields[key].default, key


def test_init_writes_once(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    assert path == tmp_path / "mistudio.toml"
    assert load_file(environ={}, cwd=tmp_path).path == path
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_example(path)
    assert path.read_text() == "mine"
    write_example(path, force=True)
    assert path.read_text() == example()
    assert [file.name for file in tmp_path.iterdir()] == ["mistudio.toml"], "nothing half-made is left"


def test_init_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OpsError, match="is not a folder"):
        write_example(tmp_path / "nope" / "mistudio.toml")
