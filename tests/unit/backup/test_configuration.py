"""The configuration in a backup: everything that is needed to build the environment again, and no secret."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mistudio_ops.operations.backup.configuration import configuration_document, masked_toml
from mistudio_ops.operations.backup.dump import without_passwords
from mistudio_ops.presentation.redaction import MASK
from tests.support.made_backups import file_workplace

SECRET = "hunter-42-planted"


@pytest.mark.parametrize(
    "text",
    [
        f'internal_token = "{SECRET}"',
        f"internal_token = '{SECRET}'",
        f'  #   internal_token   =   "{SECRET}" # the old one',
        f'"internal_token" = "{SECRET}"',
        f'server.internal_token = "{SECRET}"',
        f'server = {{ internal_token = "{SECRET}", port = 1 }}',
        f'[a.b]\nsmtp_password = "{SECRET}"\n[c]\nx = 1',
        f'database_url = "postgresql://user:{SECRET}@host/db"',
        f'# database_url = "postgresql://user:{SECRET}@host/db"',
        f'redis_url = "redis://:{SECRET}@host:1/0"',
        f'urls = ["https://x:{SECRET}@host", "https://y"]',
        f'other = "see {SECRET}"\napi_key = "{SECRET}"',
        f'backup_passphrase = "{SECRET}"',
    ],
)
def test_no_secret_stays_in_the_text(text: str) -> None:
    masked = masked_toml(text)
    assert masked is not None
    assert SECRET not in masked
    assert MASK in masked
    tomllib.loads(masked)


@pytest.mark.parametrize(
    "text",
    [f'internal_token = """\n{SECRET}\nmore"""', f'internal_token = """{SECRET}\nmore"""', "this is = = no TOML"],
)
def test_what_cannot_be_masked_is_left_out(text: str) -> None:
    masked = masked_toml(text)
    assert masked is None or SECRET not in masked


def test_what_is_no_secret_stays() -> None:
    text = '# a studio\n[environments.lab]\nport = 9000 # public\ndatabase_url = "postgresql://lab@host/db"\n'
    assert masked_toml(text) == text


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4), st.sampled_from(["token", "db_password", "secret"])
)
@example('a"b"c', "token")
@example("back\\slash", "token")
@example("\t\n\x00", "token")
def test_any_secret_in_any_writing_is_gone_or_the_text_is(value: str, key: str) -> None:
    text = f"[server]\n{key} = {json.dumps(value)}\nport = 1\n"
    try:
        assert tomllib.loads(text)["server"][key] == value
    except tomllib.TOMLDecodeError:
        return
    masked = masked_toml(text)
    assert masked is None or tomllib.loads(masked)["server"][key] == MASK


def test_the_document(tmp_path: Path) -> None:
    config = tmp_path / "mistudio.toml"
    config.write_text("[environments.lab]\nport = 9000\n")
    workplace = file_workplace(tmp_path, config_file=config)
    document = json.loads(configuration_document(workplace, {"id": "r0001"}))
    assert document["environment"] == "lab"
    assert document["release"] == {"id": "r0001"}
    assert document["file"] == {"path": str(config), "text": config.read_text()}
    assert document["resolved"]["data_dir"] == str(tmp_path / "data")
    assert document["resolved"]["database_url"] == "postgresql+psycopg://nobody@127.0.0.1:1/lab"


@pytest.mark.parametrize("harm", ["gone", "not text", "a folder"])
def test_a_file_that_cannot_be_read_is_said_to_be(tmp_path: Path, harm: str) -> None:
    config = tmp_path / "mistudio.toml"
    if harm == "not text":
        config.write_bytes(b"\xff\xfe")
    elif harm == "a folder":
        config.mkdir()
    document = json.loads(configuration_document(file_workplace(tmp_path, config_file=config), None))
    assert document["file"]["text"] is None
    assert "could not be read" in document["file"]["note"]


def test_a_known_secret_in_a_place_of_another_name_is_found(tmp_path: Path) -> None:
    """A password that was pasted into a key called anything else, while the same one is known from elsewhere."""
    config = tmp_path / "mistudio.toml"
    config.write_text(f'[environments.lab]\nrun_as = "{SECRET}"\n')
    workplace = file_workplace(tmp_path, config_file=config, environ={"MISTUDIO_BACKUP_PASSPHRASE": SECRET})
    text = configuration_document(workplace, None).decode()
    assert SECRET not in text
    assert json.loads(text)["file"]["text"] is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ALTER ROLE a WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x';", "ALTER ROLE a WITH LOGIN;"),
        ("ALTER ROLE a WITH LOGIN PASSWORD 'it''s' VALID UNTIL 'x';", "ALTER ROLE a WITH LOGIN VALID UNTIL 'x';"),
        ("CREATE ROLE a; ALTER ROLE a ENCRYPTED PASSWORD 'md5abc';", "CREATE ROLE a; ALTER ROLE a;"),
        ("CREATE ROLE password_reader;", "CREATE ROLE password_reader;"),
        ("CREATE ROLE a PASSWORD NULL;", "CREATE ROLE a;"),
    ],
)
def test_sql_without_passwords(line: str, expected: str) -> None:
    assert without_passwords(line) == expected
