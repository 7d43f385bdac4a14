"""Trainings over HTTP: what is refused, which moves are possible, what a deletion takes along."""

import asyncio
import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from fastapi import FastAPI
from safetensors.numpy import save_file
from sqlalchemy import select, text, update

from mistudio_server.app import create_app
from mistudio_server.db.engine import Database
from mistudio_server.db.models import Checkpoint, Dataset, Training, TrainingMetric, TrainingMetricArchive
from mistudio_server.realtime.redis_publisher import RedisPublisher
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.settings import Settings
from mistudio_server.statuses import TrainingStatus
from tests.integration.api.conftest import SMALL, RecordingQueue, expect, expect_problem

pytestmark = pytest.mark.integration


async def put(database: Database, training_id: str, status: str) -> None:
    """Give a training a status, as a worker does."""
    async with database.write() as session:
        await session.execute(update(Training).where(Training.id == training_id).values(status=status))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 0),
        ("k", 33),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("total_steps", 0),
        ("total_steps", 10**9),
        ("batch_size", 101),
        ("dictionary_size", 1),
        ("dictionary_size", 2**20 + 1),
        ("architecture", "dense"),
        ("lr_warmup_steps", 21),
        ("seed", -1),
        ("seed", 2**63),
        ("device", "tpu"),
        ("unknown", 1),
    ],
)
async def test_hyperparameters_out_of_range(
    client: httpx.AsyncClient, dataset: dict[str, Any], field: str, value: Any
) -> None:
    body = {"dataset_id": dataset["id"], "hyperparameters": {**SMALL, field: value}}
    response = await client.post("/trainings", content=json.dumps(body), headers={"content-type": "application/json"})
    problem = expect_problem(response, 422, "invalid_input")
    assert any("hyperparameters" in error["field"] for error in problem["errors"])
    assert expect(await client.get("/trainings"), 200)["items"] == []


async def test_k_must_fit_the_width_of_the_dataset(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    hyperparameters = {"expansion_factor": 2, "k": 17, "batch_size": 16, "total_steps": 5}
    body = {"dataset_id": dataset["id"], "hyperparameters": hyperparameters}
    problem = expect_problem(await client.post("/trainings", json=body), 422, "invalid_input")
    assert problem["errors"][0] == {
        "field": "body.hyperparameters.k",
        "value": 17,
        "message": "must not be more than the dictionary size, 16",
    }


async def test_no_such_dataset(client: httpx.AsyncClient) -> None:
    response = await client.post("/trainings", json={"dataset_id": "dst_none", "hyperparameters": SMALL})
    expect_problem(response, 404, "not_found")


async def test_text_cannot_be_trained_on(client: httpx.AsyncClient, settings: Settings) -> None:
    (settings.data_dir / "a.txt").write_text("a\n")
    found = expect(await client.post("/datasets", json={"name": "a", "path": "a.txt"}), 201)
    response = await client.post("/trainings", json={"dataset_id": found["id"], "hyperparameters": SMALL})
    assert "POST /api/v1/activations" in expect_problem(response, 422, "invalid_input")["hint"]


async def test_a_dataset_that_is_not_ready(
    client: httpx.AsyncClient, dataset: dict[str, Any], database: Database
) -> None:
    async with database.write() as session:
        await session.execute(update(Dataset).values(status="processing"))
    body = {"dataset_id": dataset["id"], "hyperparameters": SMALL}
    expect_problem(await client.post("/trainings", json=body), 409, "conflict")


async def test_without_torch_it_is_refused(settings: Settings) -> None:
    app = create_app(settings, jobs=RecordingQueue(), publisher=RecordingPublisher(), torch_installed=lambda: False)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
            for path, body in (
                ("/trainings", {"dataset_id": "d", "hyperparameters": {}}),
                ("/activations", {"dataset_id": "d", "model_id": "m", "layer": 1}),
                ("/trainings/t/resume", None),
            ):
                problem = expect_problem(await client.post(path, json=body), 503, "training_unavailable")
                assert "mistudio[train]" in problem["hint"]
            expect(await client.get("/trainings"), 200)


async def test_creating_queues_wakes_and_tells(
    training: dict[str, Any], jobs: RecordingQueue, publisher: RecordingPublisher
) -> None:
    assert training["status"] == "queued"
    assert training["queued_at"]
    assert training["hyperparameters"]["dictionary_size"] == 32
    assert jobs.woken == [("training", training["request_id"])]
    event = publisher.named("training:status")[0]
    assert event.channel == f"trainings/{training['id']}/progress"
    assert event.payload["status"] == "queued"
    assert event.payload["request_id"] == training["request_id"]


ALLOWED = {
    ("pause", "queued"): "paused",
    ("pause", "running"): "pausing",
    ("resume", "paused"): "queued",
    ("resume", "failed"): "queued",
    ("resume", "cancelled"): "queued",
    ("stop", "pending"): "cancelled",
    ("stop", "queued"): "cancelled",
    ("stop", "paused"): "cancelled",
    ("stop", "running"): "stopping",
    ("stop", "pausing"): "stopping",
}


@pytest.mark.parametrize("wish", ["pause", "resume", "stop"])
async def test_moves(client: httpx.AsyncClient, training: dict[str, Any], database: Database, wish: str) -> None:
    for status in TrainingStatus:
        await put(database, training["id"], status)
        response = await client.post(f"/trainings/{training['id']}/{wish}")
        after = ALLOWED.get((wish, status.value))
        if after:
            assert expect(response, 202)["status"] == after
        else:
            problem = expect_problem(response, 409, "conflict")
            assert f"is {status.value}" in problem["detail"]
            assert "Possible now" in problem["hint"]


@pytest.mark.parametrize("wish", ["pause", "resume", "stop"])
async def test_moves_of_nothing(client: httpx.AsyncClient, wish: str) -> None:
    expect_problem(await client.post(f"/trainings/trn_none/{wish}"), 404, "not_found")


async def test_resuming_a_failed_training_forgets_its_failure(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, jobs: RecordingQueue
) -> None:
    async with database.write() as session:
        await session.execute(
            update(Training).values(status="failed", error="e", error_code="worker_died", attempts=3, worker="w")
        )
    again = expect(await client.post(f"/trainings/{training['id']}/resume"), 202)
    assert (again["error"], again["error_code"], again["attempts"], again["worker"]) == (None, None, 0, None)
    assert len(jobs.woken) == 2


async def test_pause_and_stop_race(client: httpx.AsyncClient, training: dict[str, Any], database: Database) -> None:
    url = f"/trainings/{training['id']}"
    for _ in range(5):
        await put(database, training["id"], "running")
        paused, stopped = await asyncio.gather(client.post(f"{url}/pause"), client.post(f"{url}/stop"))
        assert stopped.status_code == 202
        assert paused.status_code in {202, 409}
        assert expect(await client.get(url), 200)["status"] == "stopping"


async def test_pausing_thrice_at_once_happens_once(client: httpx.AsyncClient, training: dict[str, Any]) -> None:
    answers = await asyncio.gather(*(client.post(f"/trainings/{training['id']}/pause") for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409]


@pytest.mark.parametrize("status", ["running", "pausing", "stopping"])
async def test_an_active_training_is_not_deleted(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, status: str
) -> None:
    await put(database, training["id"], status)
    problem = expect_problem(await client.delete(f"/trainings/{training['id']}"), 409, "conflict")
    assert status in problem["detail"]


async def add_checkpoint(database: Database, settings: Settings, training_id: str, step: int = 10) -> bytes:
    """Make a checkpoint, as a worker does; returns its weights."""
    path = f"checkpoints/{training_id}/step-{step:010d}"
    folder = settings.data_dir / path
    folder.mkdir(parents=True)
    weights = bytes(range(256)) * 20
    (folder / "sae_weights.safetensors").write_bytes(weights)
    (folder / "cfg.json").write_text("{}")
    digest = hashlib.sha256(weights).hexdigest()
    async with database.write() as session:
        session.add(
            Checkpoint(
                id=f"ckp_{step}", training_id=training_id, step=step, path=path, size_bytes=len(weights), sha256=digest
            )
        )
    return weights


async def test_deleting_takes_everything_along(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, settings: Settings
) -> None:
    await add_checkpoint(database, settings, training["id"])
    async with database.write() as session:
        for table in (TrainingMetric, TrainingMetricArchive):
            row = table(training_id=training["id"], step=1, timestamp=datetime.now(UTC), loss=1.0)
            if table is TrainingMetricArchive:
                row.id = 1
            session.add(row)
    assert (await client.delete(f"/trainings/{training['id']}")).status_code == 204
    assert not (settings.data_dir / "checkpoints" / training["id"]).exists()
    assert not list((settings.data_dir / ".trash").glob("*"))
    async with database.read() as session:
        for column in (TrainingMetric.step, TrainingMetricArchive.step, Checkpoint.step, Training.step):
            assert (await session.scalars(select(column))).all() == []
    expect_problem(await client.get(f"/trainings/{training['id']}"), 404, "not_found")


async def test_metrics(client: httpx.AsyncClient, training: dict[str, Any], database: Database) -> None:
    url = f"/trainings/{training['id']}/metrics"
    assert expect(await client.get(url), 200)["items"] == []
    async with database.write() as session:
        session.add_all(
            TrainingMetric(training_id=training["id"], step=step, timestamp=datetime.now(UTC), loss=1.0 / step)
            for step in range(1, 101)
        )
    rows = expect(await client.get(url, params={"start_step": 10, "end_step": 20}), 200)["items"]
    assert [row["step"] for row in rows] == list(range(10, 21))
    assert rows[0]["loss"] == 0.1
    assert rows[0]["fvu"] is None
    rows = expect(await client.get(url, params={"since": 95}), 200)["items"]
    assert [row["step"] for row in rows] == [96, 97, 98, 99, 100]
    thinned = expect(await client.get(url, params={"max_points": 10}), 200)["items"]
    assert len(thinned) <= 10
    assert (thinned[0]["step"], thinned[-1]["step"]) == (1, 100)


@pytest.mark.parametrize(
    "query",
    [
        {"start_step": -1},
        {"end_step": 2**31},
        {"start_step": 5, "end_step": 4},
        {"max_points": 1},
        {"since": "yesterday"},
        {"layer_idx": 2**15},
    ],
)
async def test_windows_out_of_range(client: httpx.AsyncClient, training: dict[str, Any], query: dict[str, Any]) -> None:
    response = await client.get(f"/trainings/{training['id']}/metrics", params=query)
    assert expect_problem(response, 422, "invalid_input")["errors"][0]["field"].startswith("query.")


@pytest.mark.parametrize("what", ["", "/metrics", "/checkpoints", "/checkpoints/1/download"])
async def test_parts_of_nothing(client: httpx.AsyncClient, what: str) -> None:
    expect_problem(await client.get(f"/trainings/trn_none{what}"), 404, "not_found")


async def test_checkpoint_as_a_tar(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, settings: Settings
) -> None:
    weights = await add_checkpoint(database, settings, training["id"])
    url = f"/trainings/{training['id']}/checkpoints"
    listed = expect(await client.get(url), 200)["items"][0]
    response = await client.get(f"{url}/10/download")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["etag"] == f'"{listed["sha256"]}"'
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        prefix = f"{training['id']}-step-10"
        assert archive.getnames() == [f"{prefix}/cfg.json", f"{prefix}/sae_weights.safetensors"]
        member = archive.extractfile(f"{prefix}/sae_weights.safetensors")
        assert member is not None
        assert member.read() == weights
    again = await client.get(f"{url}/10/download", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


async def test_checkpoint_in_ranges(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, settings: Settings
) -> None:
    weights = await add_checkpoint(database, settings, training["id"])
    url = f"/trainings/{training['id']}/checkpoints/10/download?file=sae_weights.safetensors"
    part = await client.get(url, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == weights[100:200]
    assert (await client.get(url)).content == weights
    for unusable in ("bytes=999999-", "bytes=b-a", "lines=1-2"):
        expect_problem(await client.get(url, headers={"Range": unusable}), 416, "range_not_satisfiable")
    assert (await client.get(url.replace("sae_weights.safetensors", "cfg.json"))).json() == {}
    expect_problem(await client.get(url.replace("sae_weights.safetensors", "../x")), 422, "invalid_input")


async def test_a_checkpoint_that_retention_removed(
    client: httpx.AsyncClient, training: dict[str, Any], database: Database, settings: Settings
) -> None:
    await add_checkpoint(database, settings, training["id"])
    (settings.data_dir / "checkpoints" / training["id"] / "step-0000000010" / "sae_weights.safetensors").unlink()
    for query in ("", "?file=sae_weights.safetensors"):
        response = await client.get(f"/trainings/{training['id']}/checkpoints/10/download{query}")
        assert "not on the disk" in expect_problem(response, 404, "not_found")["detail"]


async def test_a_dead_redis_does_not_stop_a_training_from_being_queued(settings: Settings, app: FastAPI) -> None:
    dead = settings.model_copy(update={"redis_url": _nowhere(settings), "redis_ws_url": _nowhere(settings)})
    other = create_app(dead, jobs=RecordingQueue(), publisher=RedisPublisher(dead), torch_installed=lambda: True)
    folder = settings.data_dir / "acts"
    folder.mkdir()
    save_file({"activations": np.zeros((50, 8), dtype=np.float32)}, folder / "s.safetensors")
    async with other.router.lifespan_context(other):
        transport = httpx.ASGITransport(other)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
            found = expect(await client.post("/datasets", json={"name": "a", "path": "acts"}), 201)
            body = {"dataset_id": found["id"], "hyperparameters": SMALL}
            assert expect(await client.post("/trainings", json=body), 201)["status"] == "queued"
            queues = expect(await client.get("/system/queues"), 200)["items"]
            assert queues[0] | {"oldest_queued_at": None} == {
                "name": "training", "depth": 1, "messages": None, "oldest_queued_at": None,
            }  # fmt: skip


def _nowhere(settings: Settings) -> Any:
    return type(settings.redis_url)("redis://127.0.0.1:1/0")


async def test_the_database_going_away_is_a_503(
    client: httpx.AsyncClient, training: dict[str, Any], postgres_admin: str, database: Database
) -> None:
    async with database.read() as session:
        name = await session.scalar(text("SELECT current_database()"))
    await database.close()
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        response = await client.get(f"/trainings/{training['id']}")
        problem = expect_problem(response, 503, "dependency_unavailable")
        assert response.headers["retry-after"]
        assert "PostgreSQL" in problem["detail"]
        assert "password" not in response.text
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    expect(await client.get(f"/trainings/{training['id']}"), 200)
