"""``[environments.NAME.backup]``: where its values come from, what they may be, and how they are shown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mistudio_ops.config.problems import ConfigurationError
from mistudio_ops.config.resolve import Origin, resolve_environment
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.operations.config_check import check_configuration
from mistudio_ops.operations.config_show import show_configuration
from tests.unit.config.conftest import Resolve

Write = Callable[[str], Path]
BACKUP = "[environments.local.backup]\n"
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN me@desk"


def test_the_defaults(resolve: Resolve) -> None:
    environment = resolve().environment
    assert environment.backup == BackupSettings()
    assert environment.backups == Path("/home/someone/.local/state/mistudio/local.backups")


def test_they_are_beside_the_state_wherever_that_is(resolve: Resolve) -> None:
    assert resolve(MISTUDIO_STATE_DIR="/srv/lab").environment.backups == Path("/srv/lab.backups")


def test_precedence_and_origins(resolve: Resolve, write: Write) -> None:
    file = write(f"{BACKUP}keep_daily = 1\nkeep_weekly = 1\nkeep_monthly = 1\n")
    resolved = resolve("local", "backup.keep_daily=3", MISTUDIO_BACKUP_KEEP_DAILY="2", MISTUDIO_BACKUP_KEEP_WEEKLY="2")
    backup, origins = resolved.environment.backup, resolved.origins
    assert (backup.keep_daily, backup.keep_weekly, backup.keep_monthly, backup.keep_pre_days) == (3, 2, 1, 14)
    assert origins["backup.keep_daily"] == Origin("flag", "--set backup.keep_daily")
    assert origins["backup.keep_weekly"] == Origin("environment", "MISTUDIO_BACKUP_KEEP_WEEKLY")
    assert origins["backup.keep_monthly"] == Origin("file", f"{file}: environments.local.backup.keep_monthly")
    assert origins["backup.keep_pre_days"] == Origin("default", "")


def test_each_environment_has_its_own(resolve: Resolve, write: Write) -> None:
    write(f'{BACKUP}at = "04:00"\n[environments.lab]\nport = 9100\n[environments.lab.backup]\nat = "05:00"\n')
    assert [resolve(name).environment.backup.at for name in ("local", "lab")] == ["04:00", "05:00"]


def test_every_key_is_a_variable(resolve: Resolve) -> None:
    given = BackupSettings(
        directory=Path("/b"), include=("checkpoints",), recipients=(AGE, SSH), identity_file=Path("/i"),
        passphrase_file=Path("/p"), keep_daily=1, keep_weekly=2, keep_monthly=3, keep_pre_days=4,
        destinations=("/copies", "ssh://me@nas/srv/lab", "s3://bucket/lab"), at="23:59", max_age_hours=5,
        textfile=Path("/t.prom"), tools_image="postgres:18",
    )  # fmt: skip
    variables = {
        f"MISTUDIO_BACKUP_{name.upper()}": ", ".join(value) if isinstance(value, tuple) else str(value)
        for name in BackupSettings.__dataclass_fields__
        if (value := getattr(given, name))
    }
    assert resolve(**variables).environment.backup == given


def test_a_list_in_a_variable_replaces_that_of_the_file(resolve: Resolve, write: Write) -> None:
    write(f'{BACKUP}destinations = ["/a", "/b"]\nrecipients = ["{AGE}"]\n')
    backup = resolve(MISTUDIO_BACKUP_DESTINATIONS=" /c , ,s3://x/y,").environment.backup
    assert backup.destinations == ("/c", "s3://x/y")
    assert backup.recipients == (AGE,)


@pytest.mark.parametrize(
    ("text", "at"), [("03:00", "03:00"), ("3:05", "03:05"), ("00:00", "00:00"), ("23:59", "23:59")]
)
def test_times_of_day(resolve: Resolve, text: str, at: str) -> None:
    assert resolve(MISTUDIO_BACKUP_AT=text).environment.backup.at == at


def test_a_time_of_day_of_toml(resolve: Resolve, write: Write) -> None:
    write(f"{BACKUP}at = 04:30:00\n")
    assert resolve().environment.backup.at == "04:30"


def test_paths_are_relative_to_what_names_them(write: Write, tmp_path: Path) -> None:
    write(f'{BACKUP}directory = "b"\nidentity_file = "~/key"\ntextfile = "../t.prom"\n')
    deeper = tmp_path / "a" / "b"
    deeper.mkdir(parents=True)
    environ = {"MISTUDIO_BACKUP_PASSPHRASE_FILE": "mine", "HOME": "/home/someone"}
    backup = resolve_environment("local", environ=environ, cwd=deeper).environment.backup
    assert backup.directory == tmp_path / "b", "the file's folder, found upwards"
    assert backup.passphrase_file == deeper / "mine", "the current folder"
    assert backup.identity_file == Path("~/key").expanduser()
    assert backup.textfile == tmp_path.parent / "t.prom"


WRONG = [
    ("keep_daily", "0", "keep_daily = 0: it must be greater than or equal to 1"),
    ("keep_daily", "-1", "keep_daily = -1: it must be greater than or equal to 1"),
    ("keep_weekly", "-1", "keep_weekly = -1: it must be greater than or equal to 0"),
    ("keep_monthly", "1001", "keep_monthly = 1001: it must be less than or equal to 1000"),
    ("keep_daily", '"many"', "keep_daily = 'many': it must be a whole number"),
    ("max_age_hours", "0", "max_age_hours = 0: it must be greater than or equal to 1"),
    ("at", '"25:00"', "at = '25:00': it must be a time of day such as 03:00"),
    ("at", '"03:00:30"', "at = '03:00:30': it must be a time of day such as 03:00"),
    ("at", '"03:00+02:00"', "at = '03:00+02:00': it must be a time of day such as 03:00"),
    ("at", "3", "at = 3: it must be a time of day such as 03:00"),
    ("include", '["everything"]', "it must be 'checkpoints'"),
    ("destinations", '["backups"]', "it must be /a/folder, ssh://user@host/folder or s3://bucket/prefix"),
    ("destinations", '["ftp://h/x"]', "it must be /a/folder, ssh://user@host/folder or s3://bucket/prefix"),
    ("destinations", '["ssh://u:pw@h/x"]', "a password does not belong in this file"),
    ("recipients", '["me@example"]', "it must be an age recipient (age1...) or an SSH public key"),
    ("keep_dayly", "7", "keep_dayly = 7: unknown key; did you mean keep_daily?"),
    ("passphrase", '"open sesame"', "unknown key; did you mean passphrase_file?"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_in_the_file(resolve: Resolve, write: Write, key: str, value: str, expected: str) -> None:
    path = write(f"{BACKUP}{key} = {value}\n")
    with pytest.raises(ConfigurationError) as caught:
        resolve()
    assert expected in caught.value.message
    assert caught.value.message.startswith(f"{path}: environments.local.backup.")
    assert "sesame" not in caught.value.message
    assert ":pw@" not in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("KEEP_DAILY", "0", "MISTUDIO_BACKUP_KEEP_DAILY: backup.keep_daily = '0': it must be greater than or equal"),
        ("KEEP_DAILY", "a lot", "MISTUDIO_BACKUP_KEEP_DAILY: backup.keep_daily = 'a lot': it must be a whole number"),
        ("AT", "noon", "MISTUDIO_BACKUP_AT: backup.at = 'noon': it must be a time of day such as 03:00"),
        ("DESTINATIONS", "/a,b", "MISTUDIO_BACKUP_DESTINATIONS: backup.destinations.1"),
    ],
)
def test_a_wrong_variable_is_named(resolve: Resolve, variable: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(**{f"MISTUDIO_BACKUP_{variable}": value})
    assert caught.value.message.startswith(expected)


def test_a_misspelt_flag_is_named(resolve: Resolve) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown key; did you mean backup\.keep_daily\?"):
        resolve("local", "backup.keep_dayly=3")


def test_show(resolve: Resolve, tmp_path: Path) -> None:
    shown = show_configuration(resolve(MISTUDIO_BACKUP_DESTINATIONS="/a,/b", MISTUDIO_BACKUP_IDENTITY_FILE="key"))
    values = {one.key: (one.value, one.origin) for one in shown.values if one.key.startswith("backup.")}
    assert set(values) == {f"backup.{name}" for name in BackupSettings.__dataclass_fields__}
    assert values["backup.directory"] == ("/home/someone/.local/state/mistudio/local.backups", "default")
    assert values["backup.destinations"] == ("/a, /b", "environment")
    assert values["backup.identity_file"] == (str(tmp_path / "key"), "environment")
    assert values["backup.keep_daily"] == (7, "default")
    assert values["backup.textfile"] == (None, "default")


def test_check_knows_the_variables_and_finds_what_is_wrong(write: Write, tmp_path: Path) -> None:
    known = {
        "MISTUDIO_BACKUP_KEEP_DAILY": "7", "MISTUDIO_BACKUP_PASSPHRASE": "x", "MISTUDIO_NOTIFY_URLS": "x",
        "MISTUDIO_HEARTBEAT_URL": "x", "MISTUDIO_BACKUP_KEP_DAILY": "7",
    }  # fmt: skip
    checked = check_configuration(environ={"HOME": "/h", **known}, cwd=tmp_path, euid=lambda: 1000)
    assert checked.warnings == [
        "the variable MISTUDIO_BACKUP_KEP_DAILY means nothing to mistudio-ops; did you mean MISTUDIO_BACKUP_KEEP_DAILY?"
    ]
    write(f"{BACKUP}keep_daily = 0\n")
    with pytest.raises(ConfigurationError, match="keep_daily = 0"):
        check_configuration(environ={"HOME": "/h"}, cwd=tmp_path, euid=lambda: 1000)
