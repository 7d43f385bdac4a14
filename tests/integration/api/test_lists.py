"""Lists: pages by cursor, filters, order; nothing is counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from mistudio_server.db.engine import Database
from mistudio_server.db.models import Dataset
from tests.integration.api.conftest import expect, expect_problem

pytestmark = pytest.mark.integration
NAMES = ["alpha", "beta 50%", "gamma_1", "delta", "Epsilon"]


@pytest.fixture
async def datasets(database: Database) -> list[str]:
    """Five datasets, two of which were made in the same microsecond."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    async with database.write() as session:
        for index, name in enumerate(NAMES):
            made = begin + timedelta(seconds=index // 2)
            kind = "text" if index % 2 else "activations"
            session.add(Dataset(id=f"dst_{index}", name=name, kind=kind, path=name, status="ready", created_at=made))
    return [f"dst_{index}" for index in range(len(NAMES))]


async def walk(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """Return the ids of all pages."""
    ids: list[str] = []
    while True:
        page = expect(await client.get("/datasets", params=query), 200)
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return ids
        query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 2, 5, 200])
@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("-created_at", [4, 3, 2, 1, 0]),
        ("created_at", [0, 1, 2, 3, 4]),
        ("name", [4, 0, 1, 3, 2]),
        ("-name", [2, 3, 1, 0, 4]),
    ],
)
async def test_pages(client: httpx.AsyncClient, datasets: list[str], limit: int, sort: str, order: list[int]) -> None:
    assert await walk(client, limit=limit, sort=sort) == [datasets[index] for index in order]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "A", "sort": "name"}, [0, 1, 3, 2]),
        ({"q": "50%"}, [1]),
        ({"q": "%"}, [1]),
        ({"q": "_"}, [2]),
        ({"q": "eps"}, [4]),
        ({"kind": "text"}, [3, 1]),
        ({"status": "failed"}, []),
    ],
)
async def test_filters(client: httpx.AsyncClient, datasets: list[str], query: dict[str, str], found: list[int]) -> None:
    assert await walk(client, **query) == [datasets[index] for index in found]


@pytest.mark.parametrize(
    "cursor",
    ["garbage", "W10=", "WzEsMiwzXQ==", "bnVsbA==", "é", "WyItY3JlYXRlZF9hdCIsIm5vIGRhdGUiLCJ4Il0=", "a" * 1025],
)
async def test_an_unknown_cursor(client: httpx.AsyncClient, cursor: str) -> None:
    response = await client.get("/datasets", params={"cursor": cursor})
    assert expect_problem(response, 422, "invalid_input")["errors"][0]["field"] == "query.cursor"


async def test_a_cursor_of_another_order(client: httpx.AsyncClient, datasets: list[str]) -> None:
    cursor = expect(await client.get("/datasets", params={"limit": 1}), 200)["next_cursor"]
    expect_problem(await client.get("/datasets", params={"cursor": cursor, "sort": "name"}), 422, "invalid_input")


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 201}, {"sort": "size"}, {"status": "odd"}, {"q": "\x00"}, {"q": "x" * 201}]
)
@pytest.mark.parametrize("resource", ["datasets", "models", "trainings"])
async def test_queries_out_of_range(client: httpx.AsyncClient, resource: str, query: dict[str, Any]) -> None:
    expect_problem(await client.get(f"/{resource}", params=query), 422, "invalid_input")


@pytest.mark.parametrize("resource", ["datasets", "models", "trainings"])
async def test_a_list_is_one_query_and_counts_nothing(
    client: httpx.AsyncClient, app: FastAPI, datasets: list[str], resource: str
) -> None:
    statements: list[str] = []
    engine = app.state.studio.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    expect(await client.get(f"/{resource}", params={"limit": 2}), 200)
    ours = [statement for statement in statements if resource in statement]
    assert len(ours) == 1
    assert "count(" not in ours[0].lower()
