"""Claims, takeovers and reaping against a real database; events after each commit."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.metrics.rows import MetricRow
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.repositories.runs import CheckpointRow, ClaimedTraining
from mistudio_server.services.claims import ClaimLostError
from mistudio_server.services.extraction_runs import ExtractionRuns
from mistudio_server.services.run_outcomes import Outcome
from mistudio_server.services.training_runs import TrainingRuns
from mistudio_server.settings import Settings
from tests.support.runs import checkpoint_steps, metrics, queue_extraction, queue_training, row, set_status

pytestmark = pytest.mark.integration

CHECKPOINT = CheckpointRow(20, "checkpoints/tr_1/step-0000000020", 10, "ab")


@pytest.fixture
def events() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
def runs(database: Database, events: RecordingPublisher) -> TrainingRuns:
    return TrainingRuns(database, events, "worker-1", max_attempts=3)


def rows(*steps: int) -> list[MetricRow]:
    return [MetricRow("tr_1", step, datetime.now(UTC), loss=1 / step) for step in steps]


async def claimed(runs: TrainingRuns) -> ClaimedTraining:
    run = await runs.claim()
    assert run is not None
    return run


async def test_ten_workers_that_look_at_once_claim_each_row_once(database: Database, settings: Settings) -> None:
    for number in range(6):
        await queue_training(database, settings, f"tr_{number}")
    workers = [TrainingRuns(database, RecordingPublisher(), f"worker-{n}", 3) for n in range(10)]
    found = [run.id for run in await asyncio.gather(*(one.claim() for one in workers)) if run is not None]
    assert sorted(found) == [f"tr_{number}" for number in range(6)]


async def test_what_a_worker_that_lost_its_claim_cannot_do(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    await queue_training(database, settings)
    old = await claimed(runs)
    await set_status(database, "tr_1", "queued")
    new = await claimed(runs)
    assert new.claim == old.claim + 1
    events.events.clear()
    for attempt in (
        runs.heartbeat(old),
        runs.wish(old),
        runs.started(old, 5, []),
        runs.record(old, rows(1)),
        runs.checkpoint(old, CHECKPOINT, [], resumed_from=0),
        runs.settle(old, Outcome("completed"), step=60),
    ):
        with pytest.raises(ClaimLostError):
            await attempt
    assert await metrics(database) == []
    assert await checkpoint_steps(database) == []
    assert (await row(database, "tr_1"))["status"] == "running"
    assert events.events == []


async def test_starting_again_drops_what_is_beyond_and_reconciles_checkpoints(
    database: Database, settings: Settings, runs: TrainingRuns
) -> None:
    await queue_training(database, settings)
    run = await claimed(runs)
    await runs.record(run, rows(10, 20, 30))
    for step in (5, 10, 40):
        await runs.checkpoint(run, CheckpointRow(step, f"c/{step}", 1, "x"), [], resumed_from=0)
    await runs.started(run, 20, [CheckpointRow(10, "c/10", 1, "x"), CHECKPOINT])
    assert [step for step, _ in await metrics(database)] == [10, 20]
    assert await checkpoint_steps(database) == [10, 20]
    assert (await row(database, "tr_1"))["step"] == 20


async def test_progress_never_goes_back_and_old_rows_are_not_announced(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    await queue_training(database, settings)
    run = await claimed(runs)
    await runs.started(run, 20, [])
    assert await runs.record(run, rows(10, 20), announce_after=20) == 2
    assert await runs.record(run, rows(10, 20, 21), announce_after=20) == 1
    assert (await row(database, "tr_1"))["step"] == 21
    assert [event.payload["step"] for event in events.named("training:progress")] == [21]


async def test_a_checkpoint_beyond_the_resumed_one_forgives_deaths(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    await queue_training(database, settings)
    for expected in (1, 2):
        await runs.settle(await claimed(runs), Outcome("died"))
        assert (await row(database, "tr_1"))["attempts"] == expected
    run = await claimed(runs)
    await runs.checkpoint(run, CHECKPOINT, [], resumed_from=20)
    assert (await row(database, "tr_1"))["attempts"] == 2
    await runs.checkpoint(run, CHECKPOINT, [20], resumed_from=10)
    assert (await row(database, "tr_1"))["attempts"] == 0
    assert await checkpoint_steps(database) == [20], "a step that replaces itself stays"
    (first, second) = events.named("checkpoint:created")
    assert first.channel == "trainings/tr_1/checkpoints"
    assert first.payload["checkpoint_id"] == second.payload["checkpoint_id"]


async def test_events_of_an_end_follow_the_commit(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    for name in ("tr_1", "tr_2"):
        await queue_training(database, settings, name)
    await runs.settle(await claimed(runs), Outcome("completed"), step=60)
    await runs.settle(await claimed(runs), Outcome("failed", "invalid_dataset", "NaN"), step=3)
    assert [event.payload["status"] for event in events.named("training:status")] == [
        "running", "completed", "running", "failed",
    ]  # fmt: skip
    (completed,), (failed,) = events.named("training:completed"), events.named("training:failed")
    assert completed.payload["step"] == 60
    assert (failed.payload["code"], failed.payload["message"]) == ("invalid_dataset", "NaN")
    assert {event.payload["request_id"] for event in events.events} == {"req_tr_1", "req_tr_2"}


@pytest.mark.parametrize(
    ("status", "attempts", "becomes"),
    [("running", 0, "queued"), ("pausing", 0, "paused"), ("stopping", 0, "cancelled"), ("running", 2, "failed")],
)
async def test_taking_over_what_a_dead_process_of_our_name_held(
    database: Database, settings: Settings, runs: TrainingRuns, status: str, attempts: int, becomes: str
) -> None:
    await queue_training(database, settings)
    await claimed(runs)
    async with database.write() as session:
        await session.execute(
            text("UPDATE trainings SET status = :status, attempts = :attempts"),
            {"status": status, "attempts": attempts},
        )
    other = TrainingRuns(database, RecordingPublisher(), "worker-2", 3)
    assert await other.take_over() == []
    assert await runs.take_over() == (["tr_1"] if becomes == "queued" else [])
    after = await row(database, "tr_1")
    assert (after["status"], after["attempts"]) == (becomes, attempts + 1)
    assert await runs.take_over() == []


async def test_only_silent_runs_are_reaped_and_only_once(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    for name in ("tr_1", "tr_2"):
        await queue_training(database, settings, name)
        await claimed(runs)
    async with database.write() as session:
        await session.execute(
            text("UPDATE trainings SET heartbeat_at = now() - interval '2 seconds' WHERE id = 'tr_1'")
        )
    reaped = await asyncio.gather(*(runs.reap(0.5) for _ in range(4)))
    assert sorted(run_id for ids in reaped for run_id in ids) == ["tr_1"]
    after = await row(database, "tr_1")
    assert (after["status"], after["attempts"]) == ("queued", 1)
    assert (await row(database, "tr_2"))["status"] == "running"


async def test_the_third_silence_fails_a_run_and_says_why(
    database: Database, settings: Settings, runs: TrainingRuns, events: RecordingPublisher
) -> None:
    await queue_training(database, settings)
    for _ in range(3):
        await claimed(runs)
        await asyncio.sleep(0.02)
        await runs.reap(0.01)
    after = await row(database, "tr_1")
    assert (after["status"], after["error_code"]) == ("failed", "worker_died")
    assert "worker worker-1 sent no heartbeat" in after["error"]
    assert events.named("training:failed")[0].payload["code"] == "worker_died"


async def test_silence_while_postgresql_was_away_is_nobodys_fault(
    database: Database, settings: Settings, runs: TrainingRuns
) -> None:
    await queue_training(database, settings)
    await claimed(runs)
    async with database.write() as session:
        await session.execute(text("UPDATE trainings SET heartbeat_at = pg_postmaster_start_time() - interval '1 day'"))
        seconds = (
            await session.execute(text("SELECT extract(epoch FROM now() - pg_postmaster_start_time())"))
        ).scalar_one()
    assert await runs.reap(float(seconds) + 60) == []
    assert await runs.reap(float(seconds) / 2) == ["tr_1"]


async def test_a_reaped_run_that_was_being_deleted_or_settled_is_skipped_not_waited_for(
    database: Database, settings: Settings, runs: TrainingRuns
) -> None:
    await queue_training(database, settings)
    await claimed(runs)
    await asyncio.sleep(0.02)
    async with database.write() as session:
        await session.execute(text("SELECT 1 FROM trainings FOR UPDATE"))
        assert await asyncio.wait_for(runs.reap(0.01), 2) == []
    assert await runs.reap(0.01) == ["tr_1"]


async def test_extractions_are_reaped_and_taken_over_too(
    database: Database, settings: Settings, events: RecordingPublisher
) -> None:
    runs = ExtractionRuns(database, events, "worker-1", max_attempts=3)
    await queue_extraction(database, settings)
    first = await runs.claim()
    assert first is not None
    await asyncio.sleep(0.02)
    assert await runs.reap(0.01) == ["dst_x"]
    with pytest.raises(ClaimLostError):
        await runs.record(first, 1, 2)
    with pytest.raises(ClaimLostError):
        await runs.check(first)
    assert await runs.claim() is not None
    assert await runs.take_over() == ["dst_x"]
    assert (await row(database, "dst_x", "datasets"))["attempts"] == 2
    assert [event.payload["status"] for event in events.events] == ["processing", "queued", "processing", "queued"]
    assert {event.payload["request_id"] for event in events.events} == {"req_x"}


async def recorded(database: Database, runs: TrainingRuns) -> int:
    await set_status(database, "tr_1", "queued")
    return (await claimed(runs)).recorded_step


async def execute(database: Database, statement: str) -> None:
    async with database.write() as session:
        await session.execute(text(statement))


async def test_a_claim_says_through_which_step_metrics_are_recorded(
    database: Database, settings: Settings, runs: TrainingRuns
) -> None:
    await queue_training(database, settings)
    run = await claimed(runs)
    assert run.recorded_step == 0
    await runs.started(run, 0, [])
    await runs.record(run, rows(5, 10, 15))
    assert await recorded(database, runs) == 15
    # A resume sets the run back, and what was recorded after its checkpoint goes.
    run = await claimed_again(database, runs)
    await runs.started(run, 10, [])
    assert await recorded(database, runs) == 10


async def claimed_again(database: Database, runs: TrainingRuns) -> ClaimedTraining:
    await set_status(database, "tr_1", "queued")
    return await claimed(runs)


async def test_archived_metrics_count_as_recorded(database: Database, settings: Settings, runs: TrainingRuns) -> None:
    await queue_training(database, settings)
    run = await claimed(runs)
    await runs.record(run, rows(5, 10))
    await execute(database, "INSERT INTO training_metrics_archive SELECT * FROM training_metrics")
    await execute(database, "DELETE FROM training_metrics")
    assert await recorded(database, runs) == 10


async def test_where_old_metrics_were_dropped_the_row_says_what_was_recorded(
    database: Database, settings: Settings, runs: TrainingRuns
) -> None:
    await queue_training(database, settings)
    run = await claimed(runs)
    await runs.record(run, rows(5, 10, 15))
    await runs.settle(run, Outcome("checkpointed"), step=17)
    await execute(database, "DELETE FROM training_metrics")
    assert await recorded(database, runs) == 15
    run = await claimed_again(database, runs)
    await runs.started(run, 10, [])
    assert await recorded(database, runs) == 10
