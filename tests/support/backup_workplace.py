"""A workplace for tests of making backups: a database of the test's own, and a reporter that records."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter


def workplace_of(
    database_url: str,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    config_file: Path | None = None,
    **settings: Any,
) -> Workplace:
    """Return a workplace on ``database_url``; its files are below ``folder``, ``settings`` are of backups."""
    backup = BackupSettings(directory=folder / "backups", **settings)
    environment = Environment(
        "lab", folder / "state", database_url=database_url, data_dir=folder / "data", backup=backup
    )
    return Workplace(environment, RecordingReporter(), environ or {}, now, config_file)


def connect(database_url: str) -> "psycopg.Connection[Any]":
    """Open a connection in autocommit mode."""
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True)


def fill(database_url: str, rows: int = 20_000) -> None:
    """Write ``rows`` rows of text that compresses badly into a table of the test's own, and some into a second."""
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS filling (id bigint PRIMARY KEY, content text NOT NULL)")
        connection.execute(
            "INSERT INTO filling SELECT i, md5(i::text) || md5((i * 7)::text) FROM generate_series(1, %s) i", (rows,)
        )
        connection.execute('CREATE TABLE IF NOT EXISTS "Odd name" (x int); INSERT INTO "Odd name" VALUES (1), (2)')
