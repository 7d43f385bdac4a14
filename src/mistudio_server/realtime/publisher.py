"""What services and workers need of realtime: something that publishes. Tests use the fake in ``realtime.testing``."""

from typing import Protocol

from mistudio_server.realtime.events import Event


class Publisher(Protocol):
    """Sends events to every subscriber on every instance. Never raises: losing an event must not fail a training."""

    async def publish(self, event: Event) -> None:
        """Send ``event``; failures are logged once per outage and counted."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
