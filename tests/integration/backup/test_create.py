"""Backups of a real database: what is in them, and that they hold what they say."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from psycopg import sql

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.catalog import database_facts, row_counts
from mistudio_ops.drivers.encryption import PASSPHRASE_VARIABLE
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.verify import verify
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import HookedReporter, connect, fill, workplace_of, write_checkpoint

pytestmark = pytest.mark.integration


def content_of(workplace: Workplace, stored: StoredBackup, role: Any = "database") -> bytes:
    """Return the content of one of a backup's files."""
    content = io.BytesIO()
    workplace.read(stored, role, workplace.identities(stored, workplace.keys()), content)
    return content.getvalue()


def test_a_backup_holds_what_it_says(database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    workplace = workplace_of(database_url, tmp_path)
    stored = create(workplace, kind="manual")
    manifest = stored.manifest
    assert stored.good
    assert manifest is not None
    assert manifest.rows_by_table()["filling"] == 20_000
    assert manifest.rows_by_table()["Odd name"] == 2
    assert {one.role for one in manifest.files} == {"database", "globals", "configuration"}
    assert manifest.database.revision
    assert manifest.versions["pg_dump"].split(".")[0] == str(manifest.database.server_major)
    assert content_of(workplace, stored).startswith(b"PGDMP")
    assert stored.marks.verified("read") is not None
    assert verify(workplace, stored, "restore").ok, "every count is that of the dump"


def test_nobody_else_can_read_it(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    folder = workplace.directory.path(create(workplace, kind="manual").id)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@contextmanager
def writers(database_url: str, number: int) -> Iterator[None]:
    """Let threads write pairs of rows, each pair in one transaction into two tables, until the block ends."""
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE debit (x int); CREATE TABLE credit (x int)")
    ending = threading.Event()

    def write() -> None:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            while not ending.is_set():
                connection.execute("INSERT INTO debit VALUES (1)")
                connection.execute("INSERT INTO credit VALUES (1)")
                connection.commit()

    threads = [threading.Thread(target=write) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def test_it_is_one_moment_while_others_write(database_url: str, tmp_path: Path) -> None:
    """A pair of rows is in it whole or not at all, and the counts are those of the dump, not of a later moment."""
    fill(database_url, 100_000)
    workplace = workplace_of(database_url, tmp_path)
    with writers(database_url, 2):
        time.sleep(0.3)
        stored = create(workplace, kind="manual")
    assert stored.manifest is not None
    counts = stored.manifest.rows_by_table()
    with connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM debit").fetchone()
    assert row is not None
    assert 0 < counts["debit"] == counts["credit"] < row[0]
    assert verify(workplace, stored, "restore").ok


def test_a_table_dropped_meanwhile_waits_for_the_end(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 100_000)
    dropping: list[threading.Thread] = []

    def drop() -> None:
        with connect(database_url) as connection:
            connection.execute("DROP TABLE filling")

    def begin() -> None:
        dropping.append(threading.Thread(target=drop))
        dropping[0].start()

    workplace = workplace_of(database_url, tmp_path, reporter=HookedReporter(after=0, hook=begin))
    stored = create(workplace, kind="manual")
    dropping[0].join(20)
    assert stored.manifest is not None
    assert stored.manifest.rows_by_table()["filling"] == 100_000
    assert verify(workplace, stored, "restore").ok


@pytest.mark.parametrize("with_identity", [False, True])
def test_encrypted_for_a_recipient(database_url: str, tmp_path: Path, with_identity: bool) -> None:
    fill(database_url, 100)
    identity = pyrage.x25519.Identity.generate()
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_text(str(identity))
    write_checkpoint(tmp_path / "data", "tr_a", 1, b"weights of a checkpoint")
    settings = {"identity_file": key_file} if with_identity else {}
    workplace = workplace_of(
        database_url, tmp_path, recipients=(str(identity.to_public()),), include=("checkpoints",), **settings
    )
    stored = create(workplace, kind="manual")
    assert stored.manifest is not None
    assert stored.manifest.encryption.scheme == "age"
    level = "read" if with_identity else "hash"
    assert [one.level for one in stored.marks.verifications] == [level], "what can be proven without a key is"
    for path in workplace.directory.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"PGDMP" not in content
            assert b"weights of a checkpoint" not in content
            assert str(identity).encode() not in content


def test_encrypted_with_a_passphrase(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path, environ={PASSPHRASE_VARIABLE: "correct horse battery"})
    stored = create(workplace, kind="manual")
    assert stored.manifest is not None
    assert stored.manifest.file("key") is not None
    assert content_of(workplace, stored).startswith(b"PGDMP")
    assert all(b"correct horse" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_clock_that_goes_back_does_not_reorder(database_url: str, tmp_path: Path) -> None:
    now = datetime(2026, 5, 1, 3, tzinfo=UTC)
    ids = []
    for moment in (now, now - timedelta(days=400), now + timedelta(days=1), now - timedelta(seconds=1)):
        workplace = workplace_of(database_url, tmp_path, now=lambda moment=moment: moment)  # type: ignore[misc]
        ids.append(create(workplace, kind="scheduled").id)
    backups = workplace.directory.all()
    assert [one.id for one in backups] == ids
    assert [one.sequence for one in backups] == [1, 2, 3, 4]
    assert all(one.good for one in backups)


def test_the_highest_number_is_not_given_twice_when_its_backup_is_bad(database_url: str, tmp_path: Path) -> None:
    workplace = workplace_of(database_url, tmp_path)
    first, second = create(workplace, kind="manual"), create(workplace, kind="manual")
    (workplace.directory.path(first.id) / "manifest.json").write_text("{")
    third = create(workplace, kind="manual")
    assert third.sequence > second.sequence
    assert [one.id for one in workplace.directory.all() if one.good] == [second.id, third.id]


PLANTED = {
    "database": "planted-database-1",
    "redis": "planted-redis-2",
    "other": "planted-other-3",
    "token": "planted-token-4",
    "commented": "planted-commented-5",
    "generated": "planted-generated-6",
    "role": "planted-role-7",
    "passphrase": "planted-passphrase-8",
    "escaped": 'planted-"quote"-9',
}


def plant(tmp_path: Path) -> Path:
    """Write a mistudio.toml and a file of secrets with passwords wherever somebody may put one."""
    state = tmp_path / "state"
    state.mkdir()
    names = ("postgres_admin_password", "database_password", "redis_password", "internal_token")
    (state / "secrets.json").write_text(json.dumps(dict.fromkeys(names, PLANTED["generated"])))
    config = tmp_path / "mistudio.toml"
    config.write_text(
        f"""# a studio
[environments.lab]
port = 8700
redis_url = "redis://:{PLANTED["redis"]}@h:1/0"
# database_url = "postgresql://u:{PLANTED["commented"]}@h/d"
[environments.lab.server]
internal_token = '{PLANTED["token"]}'
#hf_token = "{PLANTED["commented"]}"
log_level = "info"
[environments.other]
database_admin_url = "postgresql://admin:{PLANTED["other"]}@h/d"
server = {{ internal_token = "{PLANTED["escaped"].replace('"', chr(92) + '"')}", log_level = "debug" }}
"""
    )
    return config


def test_no_secret_is_in_any_file(database_url: str, tmp_path: Path, postgres_admin: str) -> None:
    role = f"role_{tmp_path.name}"[:60]
    config = plant(tmp_path)
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        create_role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        admin.execute(create_role.format(sql.Identifier(role), sql.Literal(PLANTED["role"])))
    try:
        workplace = workplace_of(
            database_url, tmp_path, config_file=config, environ={PASSPHRASE_VARIABLE: PLANTED["passphrase"]}
        )
        stored = create(workplace, kind="manual")
    finally:
        with psycopg.connect(postgres_admin, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    folder = workplace.directory.path(stored.id)
    text = "".join(path.read_text(errors="replace") for path in folder.iterdir())
    password = workplace.access().owner.password
    assert password
    for secret in (*PLANTED.values(), password, "SCRAM-SHA-256"):
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
    assert role in text, "the role itself is there"
    document = json.loads((folder / "configuration.json").read_text())
    assert document["resolved"]["name"] == "lab"
    assert "log_level" in document["file"]["text"]
    assert "port = 8700" in document["file"]["text"]


def test_a_role_that_may_merely_read_can_make_one(database_url: str, tmp_path: Path, postgres_admin: str) -> None:
    """No superuser is needed. Its roles are readable, their passwords are not."""
    name, role = database_url.rpartition("/")[2], f"owner_{tmp_path.name}"[:60]
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(sql.Identifier(role)))
    with connect(database_url) as connection:
        for what in ("TABLES", "SEQUENCES"):
            grant = sql.SQL(f"GRANT SELECT ON ALL {what} IN SCHEMA public TO {{}}")
            connection.execute(grant.format(sql.Identifier(role)))
    host = database_url.rpartition("@")[2]
    try:
        workplace = workplace_of(f"postgresql+psycopg://{role}:p@{host}", tmp_path)
        stored = create(workplace, kind="manual")
        assert stored.good
        assert stored.manifest is not None
        assert role in stored.manifest.database.roles
        globals_sql = (workplace.directory.path(stored.id) / "globals.sql").read_text()
        assert f"CREATE ROLE {role}" in globals_sql.replace('"', "")
        assert "PASSWORD" not in globals_sql
    finally:
        with psycopg.connect(postgres_admin, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def test_a_disk_that_lies_is_found_at_once(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back from the disk is another than what was written: the backup is bad and listed as such."""
    workplace = workplace_of(database_url, tmp_path)
    publish = type(workplace.directory).publish

    def publish_and_flip(directory: Any, manifest: Any) -> Path:
        folder = publish(directory, manifest)
        path = folder / "database.dump.zst"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return folder

    monkeypatch.setattr(type(workplace.directory), "publish", publish_and_flip)
    with pytest.raises(VerificationError, match="was made, and what lies on the disk is not what was written"):
        create(workplace, kind="manual")
    stored = workplace.directory.all()[0]
    assert not stored.good
    assert stored.marks.failure is not None


def test_facts_of_the_catalog(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute("CREATE SCHEMA apart; CREATE TABLE apart.t AS SELECT generate_series(1, 3) AS x")
        connection.execute("CREATE TABLE p (x int) PARTITION BY RANGE (x)")
        connection.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (x)")
        connection.execute("CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1)")
        connection.execute("CREATE TEMP TABLE passing (x int); CREATE UNLOGGED TABLE unlogged (x int)")
        connection.execute("CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW m AS SELECT 1")
        facts = database_facts(connection, "n")
        counts = {(one.schema, one.name): (one.rows, one.parent) for one in row_counts(connection)}
        connection.execute("DROP TABLE alembic_version")
        assert database_facts(connection, "n").revision is None
    assert facts.name == "n"
    assert facts.revision
    assert facts.encoding == "UTF8"
    assert facts.owner in facts.roles
    assert facts.size_bytes > 1 << 20
    assert counts["apart", "t"] == (3, None)
    assert counts["public", "p11"] == (1, "p")
    assert ("public", "unlogged") in counts
    assert not {name for _, name in counts} & {"p", "p1", "passing", "v", "m"}
