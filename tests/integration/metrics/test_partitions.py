"""Partitions are made ahead, once, without holding up writers for long."""

import time
from datetime import UTC, date, datetime

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.metrics.ingest import write_metrics
from mistudio_server.metrics.partitions import months_ahead, premake
from mistudio_server.metrics.rows import MetricRow

pytestmark = pytest.mark.integration

INDEXES = text("SELECT indexname FROM pg_indexes WHERE tablename = 'training_metrics_y2031m05'")


async def make(database: Database, today: date | None = None) -> list[str]:
    async with database.write() as session:
        return await premake(session, today=today)


async def ahead(database: Database, today: date | None = None) -> int:
    async with database.read() as session:
        return await months_ahead(session, today=today)


async def test_the_migration_made_six_months_and_there_is_nothing_to_do(database: Database) -> None:
    assert await ahead(database) == 6
    assert await make(database) == []


async def test_makes_what_is_missing_of_both_tables_once(database: Database) -> None:
    today = date(2031, 4, 30)
    assert await ahead(database, today) == -1
    made = await make(database, today)
    assert len(made) == 16
    assert made[0] == "training_metrics_y2031m03"
    assert made[-1] == "training_metrics_archive_y2031m10"
    assert await ahead(database, today) == 6
    assert await make(database, today) == []
    async with database.write() as session:
        row = MetricRow("tr_1", 1, datetime(2031, 5, 31, 23, 59, 59, tzinfo=UTC))
        assert await write_metrics(session, [row]) == 1
        assert len(list((await session.execute(INDEXES)).scalars())) == 2


async def test_a_gap_ends_what_is_ahead(database: Database) -> None:
    today = date(2031, 4, 30)
    await make(database, today)
    async with database.write() as session:
        await session.execute(text("DROP TABLE training_metrics_archive_y2031m07"))
    assert await ahead(database, today) == 2
    assert await make(database, today) == ["training_metrics_archive_y2031m07"]


async def test_waits_only_shortly_for_a_locked_table_and_leaves_nothing_half_made(
    database: Database, database_url: str
) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE training_metrics_archive IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(sqlalchemy.exc.OperationalError, match="lock timeout"):
            await make(database, date(2031, 4, 30))
        assert time.monotonic() - began < 4
    assert await ahead(database, date(2031, 4, 30)) == -1


async def test_goes_on_while_others_write_and_read(database: Database, database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("INSERT INTO training_metrics (training_id, step, timestamp) VALUES ('t', 1, now())")
        other.execute("SELECT count(*) FROM training_metrics_archive")
        assert len(await make(database, date(2031, 4, 30))) == 16
