"""Who may do what: tokens, scopes, and the tokenless case."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from mistudio_server.app import create_app
from mistudio_server.db.engine import Database
from mistudio_server.db.models import ApiToken
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.services import tokens
from mistudio_server.services.tokens import TokenScope
from mistudio_server.settings import Settings
from tests.integration.api.conftest import RecordingQueue, bearer, expect, expect_problem

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth_required": True})


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer mst_" + "x" * 43,
        "Bearer mst_" + "x" * 5000,
        "Basic bWU6bWU=",
        "Bearer \xe9",
        "Bearer mst_" + "x" * 42 + "'",
    ],
)
async def test_without_a_valid_token(client: httpx.AsyncClient, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    response = await client.get("/trainings", headers=headers)  # type: ignore[arg-type]
    problem = expect_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "token create" in problem["hint"]
    assert "mst_x" not in response.text


ENDPOINTS = [
    ("GET", "/trainings", TokenScope.READ),
    ("GET", "/trainings/x/metrics", TokenScope.READ),
    ("GET", "/trainings/x/checkpoints/1/download", TokenScope.READ),
    ("GET", "/system/host", TokenScope.READ),
    ("POST", "/trainings", TokenScope.WRITE),
    ("POST", "/trainings/x/stop", TokenScope.WRITE),
    ("POST", "/datasets/upload", TokenScope.WRITE),
    ("DELETE", "/models/x", TokenScope.WRITE),
    ("POST", "/activations", TokenScope.WRITE),
    ("GET", "/tokens", TokenScope.ADMIN),
    ("POST", "/tokens", TokenScope.ADMIN),
    ("DELETE", "/tokens/x", TokenScope.ADMIN),
]


@pytest.mark.parametrize("have", list(TokenScope))
async def test_scopes(client: httpx.AsyncClient, app: FastAPI, have: TokenScope) -> None:
    headers = await bearer(app, have)
    order = list(TokenScope)
    for method, path, needed in ENDPOINTS:
        response = await client.request(method, path, headers=headers)
        if order.index(have) < order.index(needed):
            assert needed in expect_problem(response, 403, "forbidden")["detail"]
        else:
            assert response.status_code in {200, 404, 422}, (path, response.text)


async def test_every_endpoint_of_the_api_asks_for_a_token(client: httpx.AsyncClient, app: FastAPI) -> None:
    for path, methods in app.openapi()["paths"].items():
        if path.startswith("/api/v1"):
            for method in methods:
                url = path.removeprefix("/api/v1").replace("{step}", "1").replace("{", "").replace("}", "")
                expect_problem(await client.request(method.upper(), url), 401, "unauthenticated")


async def test_a_revoked_and_an_expired_token(client: httpx.AsyncClient, app: FastAPI, database: Database) -> None:
    headers = await bearer(app, TokenScope.ADMIN)
    made = expect(await client.post("/tokens", json={"name": "n", "expires_days": 1}, headers=headers), 201)
    mine = {"Authorization": f"Bearer {made['token']}"}
    assert expect(await client.get("/trainings", headers=mine), 200)
    revoked = expect(await client.delete(f"/tokens/{made['id']}", headers=headers), 200)
    again = expect(await client.delete(f"/tokens/{made['id']}", headers=headers), 200)
    assert again["revoked_at"] == revoked["revoked_at"]
    assert "revoked" in expect_problem(await client.get("/trainings", headers=mine), 401, "unauthenticated")["detail"]
    async with database.write() as session:
        past = ApiToken.created_at - timedelta(days=1)
        await session.execute(update(ApiToken).values(revoked_at=None, expires_at=past))
    assert "expired" in expect_problem(await client.get("/trainings", headers=mine), 401, "unauthenticated")["detail"]


async def test_secrets_are_neither_kept_nor_listed(client: httpx.AsyncClient, app: FastAPI, database: Database) -> None:
    headers = await bearer(app, TokenScope.ADMIN)
    made = expect(await client.post("/tokens", json={"name": "n", "scopes": ["read", "write"]}, headers=headers), 201)
    assert made["token"].startswith("mst_")
    assert len(made["token"]) == 47
    assert made["token"] not in (await client.get("/tokens", headers=headers)).text
    async with database.read() as session:
        kept = (await session.scalars(select(ApiToken.token_hash))).all()
    assert tokens.hash_token(made["token"]) in kept


@pytest.mark.parametrize("body", [{}, {"name": "n", "scopes": []}, {"name": "n", "scopes": ["root"]}, {"name": ""}])
async def test_malformed_tokens(client: httpx.AsyncClient, app: FastAPI, body: dict[str, Any]) -> None:
    headers = await bearer(app, TokenScope.ADMIN)
    expect_problem(await client.post("/tokens", json=body, headers=headers), 422, "invalid_input")


async def test_use_is_noted_once_a_minute(app: FastAPI, client: httpx.AsyncClient, database: Database) -> None:
    headers = await bearer(app, TokenScope.READ)

    async def last_used() -> Any:
        async with database.read() as session:
            return await session.scalar(select(ApiToken.last_used_at))

    assert await last_used() is None
    await client.get("/trainings", headers=headers)
    first = await last_used()
    assert first is not None
    await client.get("/trainings", headers=headers)
    assert await last_used() == first
    async with database.write() as session:
        await session.execute(update(ApiToken).values(last_used_at=first - timedelta(seconds=61)))
    await client.get("/trainings", headers=headers)
    assert await last_used() > first


async def test_health_needs_no_token(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://anything") as client:
        expect(await client.get("/api/health"), 200)
        expect(await client.get("/health/live"), 200)
        expect(await client.get("/health/ready"), 200)


async def test_tokenless_answers_only_to_loopback_names(settings: Settings) -> None:
    open_settings = settings.model_copy(update={"auth_required": None})
    app = create_app(open_settings, jobs=RecordingQueue(), publisher=RecordingPublisher())
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        for name in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            expect(await client.get(f"http://{name}/api/v1/trainings"), 200)
        expect_problem(await client.get("http://evil.example/api/v1/trainings"), 401, "unauthenticated")
        wrong = {"Authorization": "Bearer wrong"}
        expect_problem(await client.get("http://localhost/api/v1/trainings", headers=wrong), 401, "unauthenticated")
