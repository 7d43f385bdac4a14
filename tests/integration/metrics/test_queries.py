"""Reading metrics: ranges, layers, the archive, and thinning that keeps every spike."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.metrics.ingest import write_metrics
from mistudio_server.metrics.queries import fetch_metrics
from mistudio_server.metrics.rows import COLUMNS, MetricRow

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)


async def store(database: Database, losses: list[float | None], layer: int | None = None) -> None:
    async with database.write() as session:
        rows = [MetricRow("tr_1", step, NOW, layer_idx=layer, loss=loss) for step, loss in enumerate(losses)]
        await write_metrics(session, rows)


async def fetch(database: Database, **options: Any) -> list[dict[str, Any]]:
    async with database.read() as session:
        return await fetch_metrics(session, "tr_1", **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(10)),
        ({"start_step": 7}, range(7, 10)),
        ({"end_step": 2}, range(3)),
        ({"start_step": 3, "end_step": 5}, range(3, 6)),
        ({"since": 8}, [9]),
        ({"since": 9}, []),
        ({"since": 3, "start_step": 6}, range(6, 10)),
        ({"since": 6, "start_step": 3}, range(7, 10)),
        ({"start_step": 5, "end_step": 4}, []),
        ({"layer_idx": 0}, []),
    ],
)
async def test_ranges(database: Database, options: dict[str, Any], expected: Any) -> None:
    await store(database, [0.0] * 10)
    assert [row["step"] for row in await fetch(database, **options)] == list(expected)


async def test_an_unknown_training_has_no_rows(database: Database) -> None:
    assert await fetch(database, max_points=10) == []


async def test_rows_are_json_ready(database: Database) -> None:
    await store(database, [0.25])
    (row,) = await fetch(database)
    assert tuple(row) == COLUMNS
    assert json.loads(json.dumps(row))["timestamp"] == NOW.isoformat()


@pytest.mark.parametrize("max_points", [None, 100])
async def test_the_archive_is_read_in_the_same_statement_when_asked_for(
    database: Database, max_points: int | None
) -> None:
    await store(database, [0.0] * 10)
    async with database.write() as session:
        await session.execute(
            text("INSERT INTO training_metrics_archive SELECT * FROM training_metrics WHERE step < 4")
        )
        await session.execute(text("DELETE FROM training_metrics WHERE step < 4"))
    found = await fetch(database, include_archived=True, max_points=max_points)
    assert [row["step"] for row in found] == list(range(10))
    assert [row["step"] for row in await fetch(database, max_points=max_points)] == list(range(4, 10))


async def test_thinning_keeps_the_ends_and_every_spike(database: Database) -> None:
    random.seed(3)
    losses: list[float | None] = [random.random() for _ in range(5000)]
    losses[1234], losses[4321] = 99.0, -99.0
    await store(database, losses)
    found = await fetch(database, max_points=100)
    steps = [row["step"] for row in found]
    assert len(steps) <= 100
    assert {0, 1234, 4321, 4999} <= set(steps)
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("max_points", [1, 4, 5, 50])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 51, 333])
async def test_thinning_never_gives_more_than_asked_for(database: Database, max_points: int, count: int) -> None:
    await store(database, [float(n % 7) for n in range(count)])
    found = await fetch(database, max_points=max_points)
    assert len(found) <= max(4, max_points)
    if count <= max_points:
        assert len(found) == count
    assert (found[0]["step"], found[-1]["step"]) == (0, count - 1)


async def test_thinning_survives_losses_that_were_not_finite(database: Database) -> None:
    await store(database, [None] * 50 + [5.0] + [None] * 50)
    found = await fetch(database, max_points=10)
    assert 50 in [row["step"] for row in found]


async def test_each_layer_is_thinned_apart(database: Database) -> None:
    await store(database, [1.0] * 100)
    await store(database, [1.0] * 30 + [8.0] + [1.0] * 69, layer=2)
    found = await fetch(database, max_points=10)
    layered = [row for row in found if row["layer_idx"] == 2]
    assert len(found) - len(layered) <= 10
    assert len(layered) <= 10
    assert 8.0 in [row["loss"] for row in layered]
    assert [row["layer_idx"] for row in await fetch(database, layer_idx=2, max_points=10)] == [2] * len(layered)


async def test_reads_by_the_index(database: Database) -> None:
    await store(database, [1.0] * 3000)
    async with database.write() as session:
        await session.execute(text("ANALYZE training_metrics"))
        plan = (
            await session.execute(
                text("EXPLAIN SELECT * FROM training_metrics WHERE training_id = 'tr_1' AND step >= 2900")
            )
        ).scalars()
    assert "training_id_step_idx" in "\n".join(plan)
