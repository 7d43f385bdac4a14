"""Health: what is checked, what fails it, and that it never takes long."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from mistudio_server.app import create_app
from mistudio_server.db import migrations
from mistudio_server.db.engine import Database
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.services import health
from mistudio_server.settings import Settings
from tests.integration.api.conftest import RecordingQueue, expect
from tests.support.servers import free_port

pytestmark = pytest.mark.integration
HEALTH = "http://127.0.0.1/api/health"
READY = "http://127.0.0.1/health/ready"


async def test_healthy(client: httpx.AsyncClient) -> None:
    document = expect(await client.get(HEALTH), 200)
    assert document["status"] == "healthy"
    assert set(document["checks"]) == {"database", "migrations", "partitions", "redis", "disk"}
    assert all(check["ok"] and check["evidence"] for check in document["checks"].values())


async def unwell(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Return the one check that fails."""
    document = expect(await client.get(HEALTH), 503)
    assert document["status"] == "unhealthy"
    failed = {key: check for key, check in document["checks"].items() if not check["ok"]}
    assert list(failed) == [name]
    assert failed[name]["hint"]
    return dict(failed[name])


async def test_an_old_schema(client: httpx.AsyncClient, database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    assert "mistudio-server migrate" in (await unwell(client, "migrations"))["hint"]
    assert expect(await client.get(READY), 503)["status"] == "waiting for migrations"


async def test_partitions_that_run_out(database: Database) -> None:
    assert "ahead" in await health.check_partitions(database)
    later = datetime.now(UTC).replace(year=datetime.now(UTC).year + 1)
    with pytest.raises(health.CheckFailedError):
        await health.check_partitions(database, later)


async def _other(settings: Settings, **changes: Any) -> FastAPI:
    return create_app(settings.model_copy(update=changes), jobs=RecordingQueue(), publisher=RecordingPublisher())


async def test_redis_out(settings: Settings) -> None:
    nowhere = SecretStr(f"redis://:hunter2@127.0.0.1:{free_port()}/1")
    app = await _other(settings, redis_ws_url=nowhere)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        found = await unwell(client, "redis")
        assert "REDIS_WS_URL" in found["evidence"]
        assert "hunter2" not in str(found)
        expect(await client.get(READY), 200)


async def test_database_out(settings: Settings) -> None:
    nowhere = SecretStr(f"postgresql+psycopg://me:hunter2@127.0.0.1:{free_port()}/none")
    app = await _other(settings, database_url=nowhere)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        response = await client.get(HEALTH)
        failed = {name for name, check in expect(response, 503)["checks"].items() if not check["ok"]}
        assert failed == {"database", "migrations", "partitions"}
        assert "hunter2" not in response.text
        assert expect(await client.get(READY), 503)["status"] == "waiting for database, migrations"
        expect(await client.get("http://127.0.0.1/health/live"), 200)


async def test_draining(app: FastAPI, client: httpx.AsyncClient) -> None:
    expect(await client.get(READY), 200)
    app.state.drain.draining = True
    assert expect(await client.get(READY), 503)["status"] == "draining"
    expect(await client.get("http://127.0.0.1/health/live"), 200)


async def test_a_check_that_hangs_is_cut_off() -> None:
    async def hang() -> str:
        await asyncio.sleep(60)
        return ""

    async def fine() -> str:
        return "fine"

    began = time.monotonic()
    found = await health.run_checks({"slow": hang, "quick": fine}, timeout=0.05)
    assert time.monotonic() - began < 1
    assert [check.ok for check in found] == [False, True]
    assert "no answer" in found[0].evidence


def test_the_head_is_read_as_alembic_reads_it() -> None:
    assert health.shipped_head() == migrations.head()
