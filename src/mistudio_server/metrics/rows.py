"""The row of the metrics store, as code outside of SQL sees it."""

from dataclasses import dataclass, fields
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MetricRow:
    """Values of one training after ``step`` optimizer steps; ``layer_idx`` None is the whole training."""

    training_id: str
    step: int
    timestamp: datetime
    layer_idx: int | None = None
    loss: float | None = None
    loss_reconstructed: float | None = None
    l0_sparsity: float | None = None
    l1_sparsity: float | None = None
    fvu: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    gpu_memory_used_mb: float | None = None
    samples_per_second: float | None = None
    dead_neurons: int | None = None

    def values(self) -> tuple[object, ...]:
        """Return the values in the order of ``COLUMNS``."""
        return tuple(getattr(self, name) for name in COLUMNS)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(MetricRow))
