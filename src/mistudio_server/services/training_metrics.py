"""Reading a training's metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mistudio_server.errors import InvalidInputError
from mistudio_server.metrics.queries import fetch_metrics
from mistudio_server.services import trainings
from mistudio_server.services.studio import Studio


@dataclass(frozen=True, slots=True)
class Window:
    """Which metrics are wanted."""

    start_step: int | None
    end_step: int | None
    since: int | None
    max_points: int
    layer_idx: int | None
    include_archived: bool


async def fetch(studio: Studio, training_id: str, window: Window) -> Sequence[Mapping[str, Any]]:
    """Return the metrics in order of their steps.

    Raises:
        NotFoundError: there is no such training.
        InvalidInputError: the window ends before it begins.
    """
    if window.start_step is not None and window.end_step is not None and window.start_step > window.end_step:
        raise InvalidInputError(
            f"start_step ({window.start_step}) is after end_step ({window.end_step}).",
            hint="Exchange them.",
            errors=[{"field": "query.start_step", "value": window.start_step, "message": "is after end_step"}],
        )
    async with studio.database.read() as session:
        rows = await fetch_metrics(session, training_id, **asdict(window))
    if not rows:
        await trainings.get(studio, training_id)
    return rows
