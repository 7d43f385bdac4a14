"""Events cross instances and stay inside their environment; clients are admitted, limited and answered."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
import structlog.testing

from mistudio_server.errors import UnauthenticatedError
from mistudio_server.realtime import hub as hub_module
from mistudio_server.realtime.events import Event
from mistudio_server.realtime.http_publisher import HttpPublisher
from mistudio_server.realtime.hub import Hub, create_hub
from mistudio_server.realtime.redis_publisher import RedisPublisher
from mistudio_server.settings import Settings
from tests.support.sockets import connected, not_found, refusal, serve, until
from tests.support.store import own_store

pytestmark = pytest.mark.integration

CHANNEL = "trainings/tr_1/progress"
EVENT = Event("training:status", CHANNEL, {"ts": 1.0, "training_id": "tr_1", "status": "running", "step": 0})


async def by_token(token: str) -> Collection[str]:
    """Know two tokens."""
    if token == "reader":
        return {"read"}
    if token == "writer":
        return {"write"}
    raise UnauthenticatedError("the token is unknown, revoked or expired")


@asynccontextmanager
async def instance(settings: Settings) -> AsyncIterator[tuple[str, Hub]]:
    """One server instance."""
    hub = create_hub(settings, by_token)
    await hub.start()
    await until(lambda: hub.healthy)
    async with serve(hub.asgi(not_found)) as url:
        yield url, hub
        await hub.stop()


async def test_an_event_of_a_worker_reaches_clients_of_every_instance_and_no_other_environment(
    settings: Settings,
) -> None:
    elsewhere = settings.model_copy(update={"redis_prefix": settings.redis_prefix + "-other"})
    publisher = RedisPublisher(settings)
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(instance(one)))[0] for one in (settings, settings, elsewhere)]
        clients = [await stack.enter_async_context(connected(url)) for url in urls]
        for client in clients:
            await client.subscribe(CHANNEL)
        await publisher.publish(EVENT)
        for client in clients[:2]:
            assert await client.next() == (EVENT.name, EVENT.payload)
        assert await clients[2].hears_nothing()
        assert await clients[0].hears_nothing(0.05), "each event comes once"
    await publisher.close()


async def test_only_subscribers_hear_and_unsubscribing_ends_it(settings: Settings) -> None:
    publisher = RedisPublisher(settings)
    async with instance(settings) as (url, _), connected(url) as hears, connected(url) as idle:
        await hears.subscribe(CHANNEL)
        await publisher.publish(EVENT)
        await hears.next()
        assert await hears.call("unsubscribe", {"channel": CHANNEL}) == {"ok": True, "channel": CHANNEL}
        await publisher.publish(EVENT)
        assert await hears.hears_nothing(0.2)
        assert await idle.hears_nothing(0.01)
    await publisher.close()


async def test_an_event_posted_over_http_reaches_clients(settings: Settings) -> None:
    """What the internal endpoint does: hand the body on to an instance's own publisher."""
    inside = RedisPublisher(settings)

    async def internal(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = orjson.loads((await receive())["body"])
        await inside.publish(Event(body["name"], body["channel"], body["payload"]))
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with instance(settings) as (url, _), connected(url) as client, serve(internal) as internal_url:
        outside = HttpPublisher(settings.model_copy(update={"websocket_emit_url": f"{internal_url}/internal/events"}))
        await client.subscribe(CHANNEL)
        await outside.publish(EVENT)
        assert await client.next() == (EVENT.name, EVENT.payload)
        assert outside.published == 1
        await outside.close()
    await inside.close()


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        ({"channel": "trainings/*/progress"}, "invalid_input", "no channel"),
        ({"channel": "nonsense"}, "invalid_input", "no channel"),
        ({"channel": ""}, "invalid_input", "channel"),
        ({"channel": 7}, "invalid_input", "channel"),
        ({}, "invalid_input", "channel"),
        (None, "invalid_input", ""),
        ("system/host", "invalid_input", ""),
        ([], "invalid_input", ""),
        ({"channel": "system/host", "room": "x"}, "invalid_input", "room"),
        ({"channel": "a" * 201}, "invalid_input", "200"),
    ],
)
@pytest.mark.parametrize("event", ["subscribe", "unsubscribe"])
async def test_a_wrong_request_is_answered_with_what_is_wrong(
    settings: Settings, event: str, data: object, code: str, says: str
) -> None:
    async with instance(settings) as (url, _), connected(url) as client:
        answer = await client.call(event, data)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert says in answer["error"]["message"]
    assert answer["error"]["hint"]


async def test_an_unknown_event_is_answered(settings: Settings) -> None:
    async with instance(settings) as (url, _), connected(url) as client:
        answer = await client.call("delete_everything", {"now": True})
    assert answer["error"]["code"] == "not_found"


async def test_a_returning_client_learns_that_nothing_is_replayed(settings: Settings) -> None:
    async with instance(settings) as (url, _), connected(url) as client:
        answer = await client.call("subscribe", {"channel": CHANNEL, "since": 12})
    assert answer == {"ok": True, "channel": CHANNEL, "recovered": False}


async def test_subscriptions_of_a_client_are_limited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SUBSCRIPTIONS_PER_CLIENT", 2)
    async with instance(settings) as (url, _), connected(url) as client:
        for number in range(2):
            await client.subscribe(f"system/gpu/{number}")
        refused = await client.call("subscribe", {"channel": "system/gpu/2"})
        await client.subscribe("system/gpu/0")
        await client.call("unsubscribe", {"channel": "system/gpu/0"})
        await client.subscribe("system/gpu/2")
    assert "2 subscriptions" in refused["error"]["message"]


async def test_an_oversized_message_ends_that_connection_only(settings: Settings) -> None:
    async with instance(settings) as (url, hub), connected(url) as rude, connected(url) as polite:
        await rude.sio.emit("subscribe", {"channel": "x" * hub_module.MAX_MESSAGE_BYTES})
        await until(lambda: hub.clients == 1)
        await polite.subscribe(CHANNEL)


async def test_counts_its_clients(settings: Settings) -> None:
    async with instance(settings) as (url, hub):
        async with connected(url), connected(url):
            assert hub.clients == 2
        await until(lambda: hub.clients == 0)


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    """Settings that need a token."""
    return settings.model_copy(update={"auth_required": True})


@pytest.mark.parametrize(
    "options", [{"auth": {"token": "reader"}}, {"headers": {"Authorization": "Bearer reader"}}], ids=["auth", "header"]
)
async def test_a_token_with_read_scope_is_admitted(guarded: Settings, options: dict[str, Any]) -> None:
    async with instance(guarded) as (url, _), connected(url, **options) as client:
        await client.subscribe(CHANNEL)


@pytest.mark.parametrize(
    ("auth", "says", "code"),
    [
        (None, "needs a bearer token", "unauthenticated"),
        ({"token": ""}, "needs a bearer token", "unauthenticated"),
        ({"token": 5}, "needs a bearer token", "unauthenticated"),
        ("reader", "needs a bearer token", "unauthenticated"),
        ({"token": "stolen"}, "unknown, revoked or expired", "unauthenticated"),
        ({"token": "writer"}, "no read scope", "forbidden"),
    ],
)
async def test_others_are_refused_with_the_reason(guarded: Settings, auth: object, says: str, code: str) -> None:
    async with instance(guarded) as (url, hub):
        said = await refusal(url, auth=auth)
        assert hub.clients == 0
    assert says in said["message"]
    assert said["data"]["code"] == code


async def test_a_wrong_token_is_refused_even_where_none_is_needed(settings: Settings) -> None:
    async with instance(settings) as (url, _):
        said = await refusal(url, auth={"token": "stolen"})
    assert said["data"]["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("origins", "origin", "admitted"),
    [
        ((), None, True),
        ((), "https://evil.example", False),
        (("https://lab.example",), "https://lab.example", True),
        (("https://lab.example",), "https://lab.example.evil", False),
        (("https://lab.example",), "http://lab.example", False),
        (("https://lab.example",), "self", True),
    ],
)
async def test_only_exact_origins_are_admitted(
    settings: Settings, origins: tuple[str, ...], origin: str | None, admitted: bool
) -> None:
    async with instance(settings.model_copy(update={"cors_origins": origins})) as (url, _):
        headers = {} if origin is None else {"Origin": url if origin == "self" else origin}
        if admitted:
            async with connected(url, headers=headers) as client:
                await client.subscribe(CHANNEL)
        else:
            await refusal(url, headers=headers)


async def test_a_killed_store_is_seen_logged_once_and_survived(settings: Settings) -> None:
    with own_store() as store:
        settings = settings.model_copy(update={"redis_ws_url": type(settings.redis_ws_url)(store.url)})
        publisher = RedisPublisher(settings)
        with structlog.testing.capture_logs() as lines:
            async with instance(settings) as (url, hub), connected(url) as client:
                await client.subscribe(CHANNEL)
                await publisher.publish(EVENT)
                await client.next()
                store.kill()
                await until(lambda: not hub.healthy)
                for _ in range(3):
                    await publisher.publish(EVENT)
                    await asyncio.sleep(0.3)
                assert not publisher.healthy
                assert publisher.dropped == 3
                assert hub.failures >= 2
                assert client.sio.connected
                store.start()
                await until(lambda: hub.healthy)
                await client.subscribe("system/host")
                while not publisher.healthy:
                    await publisher.publish(EVENT)
                    await asyncio.sleep(0.02)
                assert await client.next() == (EVENT.name, EVENT.payload)
        await publisher.close()
    for what in ("redis listener", "redis publisher"):
        events = [line["event"] for line in lines if line.get("what") == what]
        assert events == ["outage_began", "outage_ended"], what


async def test_an_instance_starts_while_the_store_is_down(settings: Settings) -> None:
    with own_store() as store:
        store.kill()
        settings = settings.model_copy(update={"redis_ws_url": type(settings.redis_ws_url)(store.url)})
        hub = create_hub(settings, by_token)
        await hub.start()
        async with serve(hub.asgi(not_found)) as url, connected(url) as client:
            await client.subscribe(CHANNEL)
            assert not hub.healthy
            store.start()
            await until(lambda: hub.healthy)
            publisher = RedisPublisher(settings)
            await publisher.publish(EVENT)
            assert await client.next() == (EVENT.name, EVENT.payload)
            await publisher.close()
        await hub.stop()
