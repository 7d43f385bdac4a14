"""Backups of a real database: what is in them, and that they hold what they say."""

import io
import subprocess
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import fill, workplace_of

pytestmark = pytest.mark.integration


def dump_of(workplace: Workplace, stored: StoredBackup, tmp_path: Path) -> Path:
    """Return the plain dump of a backup."""
    content = io.BytesIO()
    workplace.read(stored, "database", workplace.identities(stored, workplace.keys()), content)
    path = tmp_path / "plain.dump"
    path.write_bytes(content.getvalue())
    return path


def rows_in(dump: Path, table: str) -> int:
    """Count the rows of a table in a dump, by pg_restore's own reading of it."""
    argv = ["/usr/bin/env", "pg_restore", "-a", "-t", table, "-f", "-", str(dump)]
    text = subprocess.run(argv, capture_output=True, check=True).stdout.decode()
    return len(text.partition(" FROM stdin;\n")[2].partition("\n\\.\n")[0].splitlines())


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
    dump = dump_of(workplace, stored, tmp_path)
    assert rows_in(dump, "filling") == 20_000
    folder = workplace.directory.path(stored.id)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert [path.name for path in workplace.directory.root.iterdir() if path.name.startswith(".")] == []
