"""The states that datasets, models and trainings can be in, and which moves between them are allowed."""

from enum import StrEnum


class TrainingStatus(StrEnum):
    """Life of a training. ``pausing`` and ``stopping`` are requests that the worker has not carried out yet."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: A worker owns the run: it must send heartbeats.
ACTIVE = frozenset({TrainingStatus.RUNNING, TrainingStatus.PAUSING, TrainingStatus.STOPPING})
#: Nothing will change any more.
ENDED = frozenset({TrainingStatus.COMPLETED, TrainingStatus.FAILED, TrainingStatus.CANCELLED})

#: From which states a user's wish is accepted, and what the state becomes.
PAUSE = {TrainingStatus.QUEUED: TrainingStatus.PAUSED, TrainingStatus.RUNNING: TrainingStatus.PAUSING}
RESUME = {
    TrainingStatus.PAUSED: TrainingStatus.QUEUED,
    TrainingStatus.FAILED: TrainingStatus.QUEUED,
    TrainingStatus.CANCELLED: TrainingStatus.QUEUED,
}
STOP = {
    TrainingStatus.PENDING: TrainingStatus.CANCELLED,
    TrainingStatus.QUEUED: TrainingStatus.CANCELLED,
    TrainingStatus.PAUSED: TrainingStatus.CANCELLED,
    TrainingStatus.RUNNING: TrainingStatus.STOPPING,
    TrainingStatus.PAUSING: TrainingStatus.STOPPING,
}


class AssetStatus(StrEnum):
    """Life of a dataset or a model: ``queued`` and ``processing`` while an extraction or an inspection works on it."""

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class DatasetKind(StrEnum):
    """What a dataset holds: ``text``, or ``activations`` (a folder of safetensors shards of shape [n, d_model])."""

    TEXT = "text"
    ACTIVATIONS = "activations"


class SaeArchitecture(StrEnum):
    """The sparse autoencoders that can be trained."""

    STANDARD = "standard"
    TOPK = "topk"
    JUMPRELU = "jumprelu"
