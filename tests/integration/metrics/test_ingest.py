"""Metrics are written once, whatever is sent again."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.metrics.ingest import delete_metrics_after, write_metrics
from mistudio_server.metrics.rows import MetricRow

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)


def rows(*steps: int, training: str = "tr_1", layer: int | None = None) -> list[MetricRow]:
    return [MetricRow(training, step, NOW, layer_idx=layer, loss=step / 2, dead_neurons=step) for step in steps]


async def steps(database: Database, table: str = "training_metrics") -> list[int]:
    async with database.read() as session:
        return list((await session.execute(text(f"SELECT step FROM {table} ORDER BY step, layer_idx"))).scalars())


async def write(database: Database, batch: list[MetricRow]) -> int:
    async with database.write() as session:
        return await write_metrics(session, batch)


async def test_writes_a_batch_with_all_its_values(database: Database) -> None:
    row = MetricRow("tr_1", 7, NOW, 3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 10)
    assert await write(database, [row]) == 1
    async with database.read() as session:
        stored = (await session.execute(text("SELECT * FROM training_metrics"))).mappings().one()
    assert {name: stored[name] for name in MetricRow.__slots__} == {
        name: getattr(row, name) for name in MetricRow.__slots__
    }
    assert stored["id"] >= 1


async def test_a_batch_sent_again_adds_only_what_is_new(database: Database) -> None:
    assert await write(database, rows(1, 2, 3)) == 3
    assert await write(database, rows(2, 3, 4)) == 1
    assert await steps(database) == [1, 2, 3, 4]


async def test_a_row_twice_in_one_batch_is_written_once(database: Database) -> None:
    assert await write(database, rows(1, 1, 1)) == 1


async def test_layers_and_trainings_are_told_apart(database: Database) -> None:
    await write(database, rows(1))
    assert await write(database, [*rows(1, layer=0), *rows(1, layer=1), *rows(1, training="tr_2"), *rows(1)]) == 3
    assert await write(database, rows(1, layer=0)) == 0


async def test_a_row_that_moved_to_the_archive_is_not_written_again(database: Database) -> None:
    await write(database, rows(1, 2))
    async with database.write() as session:
        await session.execute(text("INSERT INTO training_metrics_archive SELECT * FROM training_metrics"))
        await session.execute(text("DELETE FROM training_metrics"))
    assert await write(database, rows(1, 2, 3)) == 1


async def test_an_empty_batch_is_nothing(database: Database) -> None:
    assert await write(database, []) == 0


async def test_a_failed_transaction_leaves_nothing_and_the_connection_usable(database: Database) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
        await write(database, [*rows(1), MetricRow("tr_1", 2, NOW + timedelta(days=1000))])
    assert await steps(database) == []
    assert await write(database, rows(1)) == 1


async def test_two_trainings_write_side_by_side(database: Database) -> None:
    written = await asyncio.gather(*(write(database, rows(*range(200), training=f"tr_{n}")) for n in range(5)))
    assert written == [200] * 5


async def test_what_came_after_a_step_is_dropped_from_both_tables(database: Database) -> None:
    await write(database, [*rows(1, 2, 3, 4), *rows(9, training="tr_2")])
    async with database.write() as session:
        await session.execute(
            text("INSERT INTO training_metrics_archive SELECT * FROM training_metrics WHERE step = 4")
        )
        await session.execute(text("DELETE FROM training_metrics WHERE step = 4"))
        assert await delete_metrics_after(session, "tr_1", 2) == 2
    assert await steps(database) == [1, 2, 9]
    assert await steps(database, "training_metrics_archive") == []
