"""What services need of the outside, as protocols: whoever starts the process passes the implementations in."""

from typing import Literal, Protocol

JobKind = Literal["training", "extraction"]


class JobQueue(Protocol):
    """Wakes workers. The queue itself is the rows with status ``queued``: a lost wake-up loses nothing."""

    async def wake(self, kind: JobKind, request_id: str | None) -> None:
        """Tell a worker that a row of this kind was queued. Failures are logged, never raised."""
        ...
