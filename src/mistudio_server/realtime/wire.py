"""The message that Socket.IO servers exchange over Redis, written without a server.

It is what ``socketio.AsyncRedisManager.emit`` of python-socketio 5 publishes (a test holds the two together).
Importing ``socketio`` for it would cost a worker 16 MB, and failures would be logged per event, not per outage.
"""

import uuid

import orjson

from mistudio_server.realtime.events import Event
from mistudio_server.settings import Settings

#: Servers ignore messages of their own; a publisher is no server, so any value that no server has will do.
_PUBLISHER = uuid.uuid4().hex


def bus_channel(settings: Settings) -> str:
    """Return the Redis channel of this environment. Pub/sub ignores DB numbers, so the prefix is what isolates."""
    return f"{settings.redis_prefix}:socketio"


def encode(event: Event) -> bytes:
    """Return the message for ``event``; NaN and Infinity, which disconnect JavaScript clients, become null.

    Raises:
        TypeError: the payload holds something that JSON has no form for.
    """
    message = {
        "method": "emit",
        "event": event.name,
        "data": [event.payload],
        "binary": False,
        "namespace": "/",
        "room": event.channel,
        "skip_sid": None,
        "callback": None,
        "host_id": _PUBLISHER,
    }
    return orjson.dumps(message)
