"""The internal listener: its token, metrics, events posted by workers."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mistudio_server.app import create_internal_app
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.settings import Settings
from tests.integration.api.conftest import expect

pytestmark = pytest.mark.integration

STATUS = {
    "name": "training:status",
    "channel": "trainings/trn_1/progress",
    "payload": {"ts": 1.0, "training_id": "trn_1", "status": "running", "step": 0},
}


@pytest.fixture
async def internal(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_internal_app(app), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def token(settings: Settings) -> dict[str, str]:
    assert settings.internal_token
    return {"Authorization": f"Bearer {settings.internal_token.get_secret_value()}"}


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer wrong", "Bearer é"])
@pytest.mark.parametrize("path", ["/internal/events", "/internal/drain"])
async def test_without_the_token(internal: httpx.AsyncClient, app: FastAPI, path: str, value: str) -> None:
    response = await internal.post(path, json=STATUS, headers={"Authorization": value.encode()})  # type: ignore[dict-item]
    assert expect(response, 401)["code"] == "unauthenticated"
    assert app.state.drain.draining is False


async def test_publishes_what_a_worker_posts(
    internal: httpx.AsyncClient, token: dict[str, str], publisher: RecordingPublisher
) -> None:
    expect(await internal.post("/internal/events", json=STATUS, headers=token), 202)
    event = publisher.events[0]
    assert (event.name, event.channel) == (STATUS["name"], STATUS["channel"])
    assert event.payload["status"] == "running"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**STATUS, "name": "training:unknown"},
        {**STATUS, "channel": "trainings/../x"},
        {**STATUS, "payload": {}},
        {**STATUS, "payload": {**STATUS["payload"], "extra": 1}},  # type: ignore[dict-item]
        {**STATUS, "more": 1},
        [],
    ],
)
async def test_refuses_what_is_not_an_event(
    internal: httpx.AsyncClient, token: dict[str, str], publisher: RecordingPublisher, body: Any
) -> None:
    document = expect(await internal.post("/internal/events", json=body, headers=token), 422)
    assert document["code"] == "invalid_input"
    assert publisher.events == []


async def test_refuses_a_huge_event(internal: httpx.AsyncClient, token: dict[str, str]) -> None:
    expect(await internal.post("/internal/events", content=b" " * 300_000, headers=token), 422)


async def test_drains(internal: httpx.AsyncClient, token: dict[str, str], client: httpx.AsyncClient) -> None:
    expect(await internal.post("/internal/drain", headers=token), 202)
    expect(await client.get("http://127.0.0.1/health/ready"), 503)


async def test_metrics_count_by_route(internal: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    for identifier in ("one", "two"):
        await client.get(f"/trainings/{identifier}")
    await client.get("/nothing/here")
    exposition = (await internal.get("/metrics")).text
    route = 'method="GET",route="/api/v1/trainings/{training_id}"'
    assert f'mistudio_http_requests_total{{{route},status="404"}} 2.0' in exposition
    assert f"mistudio_http_request_seconds_count{{{route}}} 2.0" in exposition
    assert 'route="unmatched",status="404"} 1.0' in exposition
    assert "mistudio_db_pool_size 20.0" in exposition
    assert "mistudio_websocket_clients 0.0" in exposition


async def test_metrics_from_elsewhere_need_the_token(app: FastAPI, token: dict[str, str]) -> None:
    transport = httpx.ASGITransport(create_internal_app(app), client=("10.0.0.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        expect(await client.get("/metrics"), 401)
        assert (await client.get("/metrics", headers=token)).status_code == 200


async def test_internal_paths_are_not_public(client: httpx.AsyncClient) -> None:
    for path in ("/metrics", "/internal/events", "/internal/drain"):
        assert (await client.post(f"http://127.0.0.1{path}", json={})).status_code == 404
