"""Models and extractions over HTTP."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from mistudio_server.db.engine import Database
from mistudio_server.db.models import Dataset
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.settings import Settings
from mistudio_server.training.protocol import ExtractionJob
from tests.integration.api.conftest import RecordingQueue, expect, expect_problem

pytestmark = pytest.mark.integration
WriteModel = Callable[..., Path]


@pytest.fixture
async def model(client: httpx.AsyncClient, write_model: WriteModel) -> dict[str, Any]:
    """A registered model of four layers."""
    write_model("model")
    return expect(await client.post("/models", json={"name": "gpt", "path": "model"}), 201)


@pytest.fixture
async def text(client: httpx.AsyncClient, settings: Settings) -> dict[str, Any]:
    """A registered text."""
    (settings.data_dir / "a.txt").write_text("one\ntwo\n")
    return expect(await client.post("/datasets", json={"name": "text", "path": "a.txt"}), 201)


@pytest.mark.parametrize("path", ["..", "nothing", "/etc"])
async def test_paths_outside(client: httpx.AsyncClient, path: str) -> None:
    expect_problem(await client.post("/models", json={"name": "x", "path": path}), 422, "invalid_path")


async def test_pickled_weights_are_refused(client: httpx.AsyncClient, write_model: WriteModel) -> None:
    folder = write_model("model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    problem = expect_problem(await client.post("/models", json={"name": "x", "path": "model"}), 422, "invalid_input")
    assert "pickled weights are refused" in problem["detail"]


async def test_registers(client: httpx.AsyncClient, model: dict[str, Any], publisher: RecordingPublisher) -> None:
    found = expect(await client.get(f"/models/{model['id']}"), 200)
    assert (found["architecture"], found["d_model"], found["n_layers"]) == ("GPT2LMHeadModel", 16, 4)
    assert expect(await client.get("/models"), 200)["items"] == [found]
    assert publisher.named("model:progress")[0].channel == f"models/{model['id']}/progress"
    again = await client.post("/models", json={"name": "gpt", "path": "model"})
    expect_problem(again, 409, "conflict")


async def test_uploads_and_deletes(client: httpx.AsyncClient, settings: Settings, write_model: WriteModel) -> None:
    folder = write_model("source")
    files = [("file", (path.name, path.read_bytes())) for path in sorted(folder.iterdir())]
    found = expect(await client.post("/models/upload", data={"name": "up"}, files=files), 201)
    kept = settings.data_dir / found["path"]
    assert found["path"] == f"models/{found['id']}"
    assert sorted(path.name for path in kept.iterdir()) == ["config.json", "model.safetensors"]
    edited = expect(await client.patch(f"/models/{found['id']}", json={"name": "renamed"}), 200)
    assert edited["name"] == "renamed"
    assert (await client.delete(f"/models/{found['id']}")).status_code == 204
    assert not kept.exists()
    for response in (await client.delete(f"/models/{found['id']}"), await client.patch("/models/x", json={})):
        expect_problem(response, 404, "not_found")


async def test_an_upload_without_a_configuration_leaves_nothing(client: httpx.AsyncClient, settings: Settings) -> None:
    files = [("file", ("model.safetensors", b"garbage"))]
    expect_problem(await client.post("/models/upload", data={"name": "up"}, files=files), 422, "invalid_input")
    assert [path for path in settings.data_dir.rglob("*") if path.is_file()] == []


async def test_queues_an_extraction(
    client: httpx.AsyncClient,
    model: dict[str, Any],
    text: dict[str, Any],
    jobs: RecordingQueue,
    publisher: RecordingPublisher,
) -> None:
    body = {"model_id": model["id"], "dataset_id": text["id"], "layer": 4, "max_tokens": 1000}
    found = expect(await client.post("/activations", json=body), 202)
    assert (found["kind"], found["status"], found["progress"]) == ("activations", "queued", 0.0)
    assert found["path"] == f"activations/{found['id']}"
    assert (found["model_id"], found["text_dataset_id"]) == (model["id"], text["id"])
    assert [kind for kind, _ in jobs.woken] == ["extraction"]
    assert publisher.events[-1].payload["status"] == "queued"
    ExtractionJob(dataset_id="d", model_dir="m", text_path="t", output_dir="o", **found["extraction"])
    other = expect(await client.post("/activations", json=body), 202)
    assert other["name"] != found["name"]
    for used in (f"/models/{model['id']}", f"/datasets/{text['id']}"):
        expect_problem(await client.delete(used), 409, "conflict")
    queues = expect(await client.get("/system/queues"), 200)["items"]
    assert {queue["name"]: queue["depth"] for queue in queues} == {"training": 0, "extraction": 2}


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"layer": 5}, 422, "invalid_input", "body.layer"),
        ({"layer": -1}, 422, "invalid_input", "body.layer"),
        ({"model_id": "mdl_none"}, 404, "not_found", "body.model_id"),
        ({"dataset_id": "dst_none"}, 404, "not_found", "body.dataset_id"),
        ({"name": "text"}, 409, "conflict", "body.name"),
        ({"dtype": "float8"}, 422, "invalid_input", "body.dtype"),
        ({"context_length": 1}, 422, "invalid_input", "body.context_length"),
        ({"batch_size": 5000}, 422, "invalid_input", "body.batch_size"),
        ({"max_tokens": 0}, 422, "invalid_input", "body.max_tokens"),
    ],
)
async def test_extractions_that_cannot_be(
    client: httpx.AsyncClient,
    model: dict[str, Any],
    text: dict[str, Any],
    jobs: RecordingQueue,
    changes: dict[str, Any],
    status: int,
    code: str,
    field: str,
) -> None:
    body = {"model_id": model["id"], "dataset_id": text["id"], "layer": 0, **changes}
    problem = expect_problem(await client.post("/activations", json=body), status, code)
    assert problem["errors"][0]["field"] == field
    assert jobs.woken == []


async def test_two_extractions_of_one_name_race(
    client: httpx.AsyncClient, model: dict[str, Any], text: dict[str, Any]
) -> None:
    body = {"model_id": model["id"], "dataset_id": text["id"], "layer": 0, "name": "same"}
    answers = await asyncio.gather(*(client.post("/activations", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]


async def test_activations_cannot_be_extracted_from(
    client: httpx.AsyncClient, model: dict[str, Any], dataset: dict[str, Any]
) -> None:
    body = {"model_id": model["id"], "dataset_id": dataset["id"], "layer": 0}
    assert "text" in expect_problem(await client.post("/activations", json=body), 422, "invalid_input")["hint"]


async def test_a_dataset_that_is_being_written_stays(
    client: httpx.AsyncClient, dataset: dict[str, Any], database: Database
) -> None:
    async with database.write() as session:
        await session.execute(update(Dataset).values(status="processing"))
    expect_problem(await client.delete(f"/datasets/{dataset['id']}"), 409, "conflict")


async def test_system(client: httpx.AsyncClient) -> None:
    host = expect(await client.get("/system/host"), 200)
    assert host["memory_total_mb"] > host["memory_used_mb"] > 0
    assert isinstance(expect(await client.get("/system/gpus"), 200)["items"], list)
    version = expect(await client.get("/system/version"), 200)
    assert version["schema_revision"] == "0001"
    assert version["torch_installed"] is True
