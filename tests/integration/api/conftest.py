"""A real application on a real database; only the job queue and the publisher are recorded."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from safetensors.numpy import save_file

from mistudio_server.app import create_app
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.services import tokens
from mistudio_server.services.ports import JobKind
from mistudio_server.services.tokens import TokenScope
from mistudio_server.settings import Settings

MakeShards = Callable[..., Path]


@dataclass
class RecordingQueue:
    """A ``JobQueue`` that keeps what it was told."""

    woken: list[tuple[JobKind, str | None]] = field(default_factory=list)

    async def wake(self, kind: JobKind, request_id: str | None) -> None:
        self.woken.append((kind, request_id))


@pytest.fixture
def jobs() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
def publisher() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
async def app(settings: Settings, jobs: RecordingQueue, publisher: RecordingPublisher) -> AsyncIterator[FastAPI]:
    app = create_app(settings, jobs=jobs, publisher=publisher, torch_installed=lambda: True)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, on loopback, where none is needed."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as client:
        yield client


@pytest.fixture
def write_shards(settings: Settings) -> MakeShards:
    """Write a folder of activation shards below DATA_DIR, of the given widths."""

    def write(name: str = "acts", *, widths: tuple[int, ...] = (8, 8), rows: int = 50) -> Path:
        folder = settings.data_dir / name
        folder.mkdir(parents=True)
        for index, width in enumerate(widths):
            data = np.zeros((rows, width), dtype=np.float32)
            save_file({"activations": data}, folder / f"shard-{index:05d}.safetensors")
        return folder

    return write


@pytest.fixture
def write_model(settings: Settings) -> Callable[..., Path]:
    """Write a model's directory below DATA_DIR."""

    def write(name: str = "model", **config: Any) -> Path:
        folder = settings.data_dir / name
        folder.mkdir(parents=True)
        document = {"architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_layer": 4, **config}
        (folder / "config.json").write_text(json.dumps(document))
        save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
async def dataset(client: httpx.AsyncClient, write_shards: MakeShards) -> dict[str, Any]:
    """A registered dataset of 100 activation vectors of width 8."""
    write_shards("acts")
    return expect(await client.post("/datasets", json={"name": "acts", "path": "acts"}), 201)


@pytest.fixture
async def training(client: httpx.AsyncClient, dataset: dict[str, Any]) -> dict[str, Any]:
    """A queued training."""
    body = {"dataset_id": dataset["id"], "hyperparameters": SMALL}
    return expect(await client.post("/trainings", json=body), 201)


SMALL = {"architecture": "topk", "dictionary_size": 32, "k": 4, "batch_size": 16, "total_steps": 20}


def expect(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the document of a response that must have ``status``."""
    assert response.status_code == status, response.text
    return dict(response.json()) if response.content else {}


def expect_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of a response that must be one."""
    document = expect(response, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"urn:mistudio:problem:{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    return document


async def bearer(app: FastAPI, *scopes: TokenScope) -> dict[str, str]:
    """Return the header of a new token."""
    made = await tokens.create(app.state.studio.database, "test", scopes)
    return {"Authorization": f"Bearer {made.secret}"}
