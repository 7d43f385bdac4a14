"""Which publisher a worker uses."""

from mistudio_server.realtime.publisher import Publisher
from mistudio_server.realtime.redis_publisher import RedisPublisher
from mistudio_server.settings import Settings


def create_publisher(settings: Settings) -> Publisher:
    """Return the HTTP publisher when WEBSOCKET_EMIT_URL is set, else the one that reaches Redis itself."""
    if settings.websocket_emit_url is None:
        return RedisPublisher(settings)
    from mistudio_server.realtime.http_publisher import HttpPublisher  # noqa: PLC0415 - httpx only where it is used

    return HttpPublisher(settings)
