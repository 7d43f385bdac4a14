"""The HTTP publisher's contract: never raises, counts what is lost, is refused loudly but is then not in an outage."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import structlog.testing

from mistudio_server.realtime.choose import create_publisher
from mistudio_server.realtime.events import Event
from mistudio_server.realtime.http_publisher import HttpPublisher
from mistudio_server.realtime.redis_publisher import RedisPublisher
from mistudio_server.settings import Settings

EVENT = Event("training:status", "trainings/a/progress", {"loss": float("nan")})


def settings(**more: object) -> Settings:
    values = {
        "websocket_emit_url": "http://127.0.0.1:1/internal/events",
        "internal_token": "secret",
        "data_dir": Path(),
    }
    return Settings(**(values | more))  # type: ignore[arg-type]


def publisher(answer: Callable[[httpx.Request], httpx.Response]) -> HttpPublisher:
    return HttpPublisher(settings(), transport=httpx.MockTransport(answer))


async def test_posts_name_channel_and_payload_with_the_token() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202)

    sender = publisher(answer)
    await sender.publish(EVENT)
    await sender.close()
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert json.loads(seen[0].content) == {"name": EVENT.name, "channel": EVENT.channel, "payload": {"loss": None}}
    assert (sender.published, sender.dropped, sender.healthy) == (1, 0, True)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error_is_an_outage_that_ends(status: int) -> None:
    answers = [httpx.Response(status), httpx.Response(202)]
    now = [0.0]
    sender = HttpPublisher(settings(), clock=lambda: now[0], transport=httpx.MockTransport(lambda _: answers.pop(0)))
    await sender.publish(EVENT)
    assert (sender.healthy, sender.dropped) == (False, 1)
    await sender.publish(EVENT)
    assert (len(answers), sender.dropped) == (1, 2), "nothing is tried during the pause"
    now[0] += 3
    await sender.publish(EVENT)
    await sender.close()
    assert (sender.healthy, sender.published) == (True, 1)


async def test_a_refusal_is_logged_and_is_no_outage() -> None:
    sender = publisher(lambda _: httpx.Response(401, text="wrong token"))
    with structlog.testing.capture_logs() as lines:
        await sender.publish(EVENT)
    await sender.close()
    assert lines[0]["event"] == "event_refused"
    assert lines[0]["answer"] == "wrong token"
    assert (sender.healthy, sender.dropped, sender.published) == (True, 1, 0)


async def test_a_dead_server_raises_nothing() -> None:
    sender = HttpPublisher(settings())
    await sender.publish(EVENT)
    await sender.close()
    assert not sender.healthy


async def test_a_payload_without_json_form_raises_nothing() -> None:
    sender = publisher(lambda _: httpx.Response(202))
    await sender.publish(Event("x", "c", {"a": object()}))
    await sender.close()
    assert (sender.dropped, sender.healthy) == (1, True)


def test_needs_its_url() -> None:
    with pytest.raises(ValueError, match="WEBSOCKET_EMIT_URL"):
        HttpPublisher(settings(websocket_emit_url=None))


async def test_the_setting_chooses_the_publisher() -> None:
    for chosen, kind in ((create_publisher(settings()), HttpPublisher),
                         (create_publisher(settings(websocket_emit_url=None)), RedisPublisher)):  # fmt: skip
        assert isinstance(chosen, kind)
        await chosen.close()
