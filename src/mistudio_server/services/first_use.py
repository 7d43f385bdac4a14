"""A job queue that is made when the first job is queued: Celery costs an idle backend 0.3 s and 15 MB."""

import asyncio
from collections.abc import Callable

from mistudio_server.services.ports import JobKind, JobQueue


class JobQueueOnFirstUse:
    """A ``JobQueue`` that makes the real one, in a thread, when it is first needed."""

    def __init__(self, make: Callable[[], JobQueue]) -> None:
        self._make = make
        self._queue: JobQueue | None = None
        self._making = asyncio.Lock()

    async def wake(self, kind: JobKind, request_id: str | None) -> None:
        """Tell a worker that a row of this kind was queued."""
        async with self._making:
            if self._queue is None:
                self._queue = await asyncio.to_thread(self._make)
        await self._queue.wake(kind, request_id)
