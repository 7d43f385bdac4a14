"""What publishers write is what python-socketio's own manager writes."""

import json
from typing import Any

import pytest
import socketio

from mistudio_server.realtime.events import Event
from mistudio_server.realtime.wire import encode


class _Capturing(socketio.AsyncRedisManager):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(write_only=True)
        self.messages: list[dict[str, Any]] = []

    async def _handle_emit(self, _message: dict[str, Any]) -> None:
        return

    async def _publish(self, data: dict[str, Any]) -> None:
        self.messages.append(data)


async def test_is_what_the_stock_manager_publishes() -> None:
    event = Event("training:status", "trainings/a/progress", {"ts": 1.5, "status": "running", "nested": {"x": [1]}})
    manager = _Capturing()
    await manager.emit(event.name, event.payload, room=event.channel)
    ours, theirs = json.loads(encode(event)), manager.messages[0]
    assert ours.pop("host_id") != theirs.pop("host_id")
    assert ours == theirs


def test_values_that_are_not_finite_become_null() -> None:
    event = Event("x", "c", {"a": float("nan"), "b": [float("inf"), -float("inf")], "c": {"d": float("nan")}})
    assert json.loads(encode(event))["data"] == [{"a": None, "b": [None, None], "c": {"d": None}}]


def test_what_has_no_json_form_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError):
        encode(Event("x", "c", {"a": object()}))
