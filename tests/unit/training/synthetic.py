"""Data with a known answer, jobs over it, and a channel that lives in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mistudio_server.training.channel import FinishReason
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.protocol import Metric, Report, TrainingJob
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.shards import ShardWriter

T = TypeVar("T")


def write_dictionary_data(
    folder: Path, *, d_model: int = 64, features: int = 128, active: int = 4, rows: int = 40_000, seed: int = 0
) -> Array:
    """Write sums of about ``active`` of ``features`` unit directions in ``d_model`` dimensions; return the directions.

    More directions than dimensions: they are in superposition. Amplitudes are 1.5 to 4.5, on a common offset.
    """
    random = np.random.default_rng(seed)
    directions = random.normal(size=(features, d_model)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    amplitudes = (random.random((rows, features)) < active / features) * random.uniform(1.5, 4.5, (rows, features))
    write_rows(folder, amplitudes.astype(np.float32) @ directions + 0.1, shard_rows=16_384)
    return directions


def write_rows(folder: Path, rows: Array, *, shard_rows: int = 700, dtype: str = "float32") -> None:
    """Write ``rows`` as shards into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, d_model=rows.shape[1], shard_rows=shard_rows, dtype=dtype) as writer:
        writer.append(rows)


def noise(rows: int = 2_000, d_model: int = 16, seed: int = 0) -> Array:
    """Return rows of Gaussian noise."""
    return np.random.default_rng(seed).normal(size=(rows, d_model)).astype(np.float32)


def small_job(tmp_path: Path, **changes: Any) -> TrainingJob:
    """Return a training of 40 steps that takes a tenth of a second, over ``tmp_path/activations``."""
    values: dict[str, Any] = {
        "architecture": "topk", "dictionary_size": 64, "k": 4, "batch_size": 64, "total_steps": 40, "log_interval": 3,
        "checkpoint_interval": 10, "dead_feature_window": 5, "learning_rate": 1e-3, "seed": 5, "device": "cpu",
    }  # fmt: skip
    return TrainingJob(
        training_id="trn_1",
        activations_dir=str(tmp_path / "activations"),
        checkpoints_dir=str(tmp_path / "checkpoints"),
        hyperparameters=Hyperparameters.model_validate(values | changes),
        torch_num_threads=1,
    )


class MemoryChannel:
    """Keeps the reports; ``on_report`` may ask to end or confirm."""

    def __init__(self, on_report: "Callable[[MemoryChannel, Report], None] | None" = None) -> None:
        self.reports: list[Report] = []
        self.reason: FinishReason | None = None
        self.confirmed = -1
        self._on_report = on_report

    def emit(self, report: Report) -> None:
        self.reports.append(report)
        if self._on_report:
            self._on_report(self, report)

    def finish_reason(self) -> FinishReason | None:
        return self.reason

    def confirmed_step(self) -> int:
        return self.confirmed

    def of(self, kind: type[T]) -> list[T]:
        """Return the reports of one kind."""
        return [report for report in self.reports if isinstance(report, kind)]


def values_of(metrics: list[Metric]) -> list[dict[str, Any]]:
    """Return what must be the same in every run: all but the clock's part."""
    return [metric.model_dump(exclude={"timestamp", "samples_per_second"}) for metric in metrics]
