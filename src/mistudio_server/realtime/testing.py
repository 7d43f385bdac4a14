"""A publisher for tests of services and workers: it keeps what it was given."""

from mistudio_server.realtime.events import Event


class RecordingPublisher:
    """A ``Publisher`` without a wire."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    async def publish(self, event: Event) -> None:
        """Keep ``event``."""
        self.events.append(event)

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def named(self, name: str) -> list[Event]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if event.name == name]
