"""A worker sees trainings through, whatever happens to their processes."""

import asyncio
import itertools
import os
import signal
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.settings import Settings
from tests.integration.workers.conftest import Supervise
from tests.support import fake_child
from tests.support.runs import (
    alive,
    checkpoint_steps,
    metrics,
    plan,
    queue_training,
    row,
    set_status,
    starts,
    wait_for,
    wait_status,
)
from tests.support.sockets import until

pytestmark = pytest.mark.integration

WHOLE = [(step, fake_child.loss_at(step)) for step in range(1, 61)]


async def test_runs_a_queued_training_to_its_end(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    await queue_training(database, worker_settings)
    async with supervise():
        done = await wait_status(database, "tr_1", "completed")
    assert (done["step"], done["attempts"], done["claim"], done["worker"]) == (60, 0, 1, "worker-1")
    assert done["last_metric"]["step"] == 60
    assert done["started_at"] <= done["ended_at"]
    assert done["heartbeat_at"] is None
    assert await metrics(database) == WHOLE
    assert await checkpoint_steps(database) == [20, 40, 60]


@pytest.mark.parametrize(("wish", "result"), [("pausing", "paused"), ("stopping", "cancelled")])
async def test_a_pause_or_a_stop_checkpoints_and_a_resumed_run_is_whole(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise, wish: str, result: str
) -> None:
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 5)
        await set_status(database, "tr_1", wish)
        ended = await wait_status(database, "tr_1", result)
        assert 5 < ended["step"] < 60
        assert ended["attempts"] == 0
        assert (ended["ended_at"] is not None) == (result == "cancelled")
        assert ended["step"] in await checkpoint_steps(database)
        assert not alive(starts(folder)[0][0])
        await set_status(database, "tr_1", "queued")
        await wait_status(database, "tr_1", "completed")
    assert [step for _, step in starts(folder)] == [0, ended["step"]]
    assert await metrics(database) == WHOLE


async def test_a_stop_overtakes_a_pause(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, deaf=True)
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 0)
        await set_status(database, "tr_1", "pausing")
        await asyncio.sleep(0.2)
        await set_status(database, "tr_1", "stopping")
        await wait_for(database, "tr_1", lambda found: found["status"] in {"cancelled", "completed"})


async def test_a_child_killed_thrice_at_the_same_place_fails_the_run_with_the_reason(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, die_at=30)
    await queue_training(database, worker_settings)
    async with supervise():
        failed = await wait_status(database, "tr_1", "failed")
        await asyncio.sleep(0.3)
    # The first death came after a new checkpoint (at 20), which forgave nothing: there was nothing to forgive yet.
    assert [step for _, step in starts(folder)] == [0, 20, 20]
    assert (failed["error_code"], failed["attempts"]) == ("worker_died", 3)
    for part in ("3 times", "SIGKILL", "out of memory", "the last words of a doomed process"):
        assert part in failed["error"]
    assert await metrics(database) == WHOLE[:29]
    assert await checkpoint_steps(database) == [20]


async def test_deaths_with_progress_between_them_do_not_add_up(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=100)
    await queue_training(database, worker_settings, total_steps=110)
    async with supervise():
        for death, after in enumerate((21, 41, 61, 81), start=1):
            await wait_for(database, "tr_1", lambda found, after=after: found["step"] >= after)
            os.kill(starts(folder)[-1][0], signal.SIGKILL)
            await wait_for(database, "tr_1", lambda found, death=death: found["claim"] == death + 1)
        done = await wait_status(database, "tr_1", "completed")
    assert done["attempts"] == 0
    assert [step for step, _ in await metrics(database)] == list(range(1, 111))


async def test_a_killed_childs_metrics_after_its_checkpoint_are_dropped_and_made_again(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, die_once_at=33)
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_status(database, "tr_1", "completed")
    assert [step for _, step in starts(folder)] == [0, 20]
    assert await metrics(database) == WHOLE


async def test_a_run_that_cannot_go_on_is_failed_with_its_own_reason(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, fail_at=3)
    await queue_training(database, worker_settings)
    async with supervise():
        failed = await wait_status(database, "tr_1", "failed")
    assert (failed["error_code"], failed["error"]) == ("invalid_dataset", "NaN in shard 3. look at it")
    assert failed["attempts"] == 0
    assert len(starts(folder)) == 1


async def test_an_end_without_a_last_report_is_a_death(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, silent_exit=2)
    await queue_training(database, worker_settings)
    async with supervise():
        failed = await wait_status(database, "tr_1", "failed")
    assert failed["error_code"] == "worker_died"
    assert "without a last report" in failed["error"]


async def test_garbage_and_endless_lines_of_the_child_are_passed_over(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, garbage=7)
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_status(database, "tr_1", "completed")
    assert await metrics(database) == WHOLE


async def test_a_dataset_that_is_gone_fails_the_run_with_what_to_do(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    await queue_training(database, worker_settings)
    (worker_settings.data_dir / "activations/dst_1").rmdir()
    async with supervise():
        failed = await wait_status(database, "tr_1", "failed")
    assert failed["error_code"] == "invalid_path"
    assert starts(folder) == []


async def test_hyperparameters_of_another_release_fail_the_run(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    await queue_training(database, worker_settings, from_the_future=1)
    async with supervise():
        failed = await wait_status(database, "tr_1", "failed")
    assert failed["error_code"] == "invalid_input"
    assert "from_the_future" in failed["error"]


async def test_a_program_that_cannot_be_started_fails_the_run(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    await queue_training(database, worker_settings)
    async with supervise() as supervisor:
        supervisor._child_argv = ("/nowhere/python",)
        failed = await wait_status(database, "tr_1", "failed")
    assert "could not be started" in failed["error"]


async def test_a_deaf_child_is_killed_when_its_time_is_over(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, deaf=True, steps_per_second=10)
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 0)
        await set_status(database, "tr_1", "stopping")
        await wait_status(database, "tr_1", "cancelled")
    assert not alive(starts(folder)[0][0])


async def test_a_lost_claim_kills_the_child_and_writes_nothing_more(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=50)
    await queue_training(database, worker_settings)
    async with supervise() as supervisor:
        await wait_for(database, "tr_1", lambda found: found["step"] > 3)
        async with database.write() as session:
            await session.execute(text("UPDATE trainings SET claim = claim + 1, worker = 'worker-2'"))
        before = len(await metrics(database))
        await until(lambda: not supervisor.running)
        assert not alive(starts(folder)[0][0])
    after = await row(database, "tr_1")
    assert (after["status"], after["worker"], after["claim"]) == ("running", "worker-2", 2)
    assert len(await metrics(database)) <= before + 1


async def test_a_deleted_training_takes_its_process_and_its_files_along(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    plan(folder, steps_per_second=50)
    await queue_training(database, worker_settings)
    async with supervise() as supervisor:
        await wait_for(database, "tr_1", lambda found: found["step"] > 22)
        async with database.write() as session:
            await session.execute(text("DELETE FROM trainings"))
        await until(lambda: not supervisor.running)
    assert not alive(starts(folder)[0][0])
    assert not (worker_settings.data_dir / "checkpoints/tr_1").exists()


async def test_goes_on_while_connections_are_cut_again_and_again(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise, database_url: str
) -> None:
    plan(folder, steps_per_second=40)
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 3)
        with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as admin:
            for _ in range(6):
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'mistudio worker-1'"
                )
                await asyncio.sleep(0.12)
        done = await wait_status(database, "tr_1", "completed")
    assert (done["claim"], done["attempts"]) == (1, 0)
    assert await metrics(database) == WHOLE
    assert len(starts(folder)) == 1


async def test_the_database_may_be_away_for_long_and_the_child_waits_at_its_pipe(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise, database_url: str
) -> None:
    plan(folder, steps_per_second=500)
    await queue_training(database, worker_settings, total_steps=400, checkpoint_interval=1000)
    plain = database_url.replace("+psycopg", "")
    name = plain.rpartition("/")[2]
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 3)
        await database.engine.dispose()
        with psycopg.connect(plain.replace(name, "postgres"), autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await asyncio.sleep(1.5)
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        done = await wait_status(database, "tr_1", "completed")
    assert (done["claim"], done["attempts"]) == (1, 0)
    assert [step for step, _ in await metrics(database)] == list(range(1, 401))


async def test_metrics_of_a_month_without_partition_get_one(
    database: Database, worker_settings: Settings, supervise: Supervise
) -> None:
    async with database.write() as session:
        names = (
            await session.execute(
                text("SELECT relname FROM pg_class WHERE relname ~ '^training_metrics(_archive)?_y' AND relkind = 'r'")
            )
        ).scalars()
        for name in list(names):
            await session.execute(text(f"DROP TABLE {name}"))
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_status(database, "tr_1", "completed")
    assert await metrics(database) == WHOLE


async def test_stopping_the_worker_puts_the_run_back_with_its_attempts(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    await queue_training(database, worker_settings)
    async with supervise():
        await wait_for(database, "tr_1", lambda found: found["step"] > 5)
    back = await row(database, "tr_1")
    assert (back["status"], back["attempts"]) == ("queued", 0)
    assert not alive(starts(folder)[0][0])
    async with supervise():
        await wait_status(database, "tr_1", "completed")
    assert starts(folder)[1][1] == back["step"]
    assert await metrics(database) == WHOLE


async def test_runs_are_taken_in_the_order_of_the_queue_one_per_slot(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    for number in range(3):
        await queue_training(database, worker_settings, f"tr_{number}", total_steps=20)
    async with supervise():
        for number in range(3):
            await wait_status(database, f"tr_{number}", "completed")
    runs = [await row(database, f"tr_{number}") for number in range(3)]
    assert all(earlier["ended_at"] <= later["started_at"] for earlier, later in itertools.pairwise(runs))


async def test_two_workers_never_run_one_row(
    database: Database, worker_settings: Settings, folder: Path, supervise: Supervise
) -> None:
    for number in range(6):
        await queue_training(database, worker_settings, f"tr_{number}", total_steps=20)
    other = worker_settings.model_copy(update={"mistudio_instance": "worker-2"})
    async with supervise(), supervise(other):
        for number in range(6):
            await wait_status(database, f"tr_{number}", "completed")
    rows = [await row(database, f"tr_{number}") for number in range(6)]
    assert {found["worker"] for found in rows} == {"worker-1", "worker-2"}
    assert {found["claim"] for found in rows} == {1}
    assert len(starts(folder)) == 6
