"""A worker sees extractions through; what they leave behind is whole or not there."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.settings import Settings
from tests.integration.workers.conftest import Supervise
from tests.support.runs import alive, plan, queue_extraction, row, set_status, starts, wait_for, wait_status
from tests.support.sockets import until

pytestmark = pytest.mark.integration


def left_behind(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "activations").glob("*"))


async def test_makes_a_dataset(database: Database, worker_settings: Settings, supervise: Supervise) -> None:
    await queue_extraction(database, worker_settings)
    async with supervise():
        ready = await wait_status(database, "dst_x", "ready", "datasets")
    assert (ready["rows"], ready["d_model"], ready["size_bytes"], ready["progress"]) == (50, 4, 100, 1.0)
    assert (ready["attempts"], ready["claim"], ready["error"], ready["heartbeat_at"]) == (0, 1, None, None)
    assert left_behind(worker_settings) == ["dst_x"]


async def test_a_deleted_dataset_takes_its_process_and_its_files_along(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=20)
    await queue_extraction(database, worker_settings)
    async with supervise() as supervisor:
        await wait_for(database, "dst_x", lambda found: (found["progress"] or 0) > 0, "datasets")
        async with database.write() as session:
            await session.execute(text("DELETE FROM datasets WHERE id = 'dst_x'"))
        await until(lambda: not supervisor.running)
    assert not alive(starts(folder)[0][0])
    assert left_behind(worker_settings) == []


async def test_a_killed_extraction_begins_again_and_leaves_nothing_half_made(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=50)
    await queue_extraction(database, worker_settings)
    async with supervise():
        await until(lambda: len(starts(folder)) == 1)
        os.kill(starts(folder)[0][0], signal.SIGKILL)
        ready = await wait_status(database, "dst_x", "ready", "datasets")
    assert (ready["attempts"], ready["claim"]) == (1, 2)
    assert left_behind(worker_settings) == ["dst_x"]


async def test_one_that_dies_thrice_is_failed_with_the_reason(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, die_at=2)
    await queue_extraction(database, worker_settings)
    async with supervise():
        failed = await wait_status(database, "dst_x", "failed", "datasets")
    assert failed["attempts"] == 3
    assert "SIGKILL" in failed["error"]
    assert left_behind(worker_settings) == []


async def test_one_that_cannot_go_on_is_failed_at_once(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, fail_at=2)
    await queue_extraction(database, worker_settings)
    async with supervise():
        failed = await wait_status(database, "dst_x", "failed", "datasets")
    assert failed["error"] == "NaN in shard 3. look at it"
    assert left_behind(worker_settings) == []


async def test_stopping_the_worker_puts_it_back(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=20)
    await queue_extraction(database, worker_settings)
    async with supervise():
        await wait_for(database, "dst_x", lambda found: (found["progress"] or 0) > 0, "datasets")
    back = await row(database, "dst_x", "datasets")
    assert (back["status"], back["attempts"], back["progress"]) == ("queued", 0, 0)
    assert not alive(starts(folder)[0][0])


async def test_a_model_that_is_gone_fails_it(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    await queue_extraction(database, worker_settings)
    (worker_settings.data_dir / "models/mdl_1").rmdir()
    async with supervise():
        failed = await wait_status(database, "dst_x", "failed", "datasets")
    assert "models/mdl_1" in failed["error"]
    assert starts(folder) == []


async def test_only_the_kinds_of_its_queues_are_claimed(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    await queue_extraction(database, worker_settings)
    async with supervise(kinds=("training",)):
        await asyncio.sleep(0.4)
    assert (await row(database, "dst_x", "datasets"))["status"] == "queued"


async def test_a_dataset_that_is_no_extraction_is_left_alone(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    await queue_extraction(database, worker_settings)
    await set_status(database, "dst_t", "queued", "datasets")
    async with supervise():
        await wait_status(database, "dst_x", "ready", "datasets")
    assert (await row(database, "dst_t", "datasets"))["status"] == "queued"
