"""Measuring a downloaded checkpoint on held-out activations, beside an untrained one and the mean."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path


def evaluator(data_dir: Path) -> Callable[[Path, str], Awaitable[dict[str, float]]]:
    """Return the measurement for activations whose path is relative to ``data_dir``."""

    async def evaluate(checkpoint: Path, activations: str) -> dict[str, float]:
        return await asyncio.to_thread(_measure, checkpoint, data_dir / activations)

    return evaluate


def _measure(checkpoint: Path, activations: Path) -> dict[str, float]:
    # torch takes seconds to import: only when there is something to measure
    from mistudio_server.training.evaluate import evaluate  # noqa: PLC0415

    measured = evaluate(checkpoint, activations)
    untrained = evaluate(checkpoint, activations, untrained_seed=0)
    return {
        "fvu": measured.fvu,
        "fvu_untrained": untrained.fvu,
        "fvu_mean_baseline": measured.fvu_mean_baseline,
        "l0": measured.l0,
    }
