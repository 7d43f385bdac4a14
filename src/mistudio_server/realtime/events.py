"""The registry of realtime events: one source for the emitter, validation and the documents.

A channel is a Socket.IO room. Publishing an event validates its payload against the model here.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mistudio_server.statuses import AssetStatus, TrainingStatus


class Payload(BaseModel):
    """Base of all payloads. ``ts`` is seconds since 1970, ``request_id`` the request that caused the event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ts: float
    request_id: str | None = None


class TrainingProgress(Payload):
    """Metrics after ``step`` optimizer steps; a value that is not finite is null."""

    training_id: str
    step: int
    total_steps: int
    progress: float
    loss: float | None
    loss_reconstructed: float | None
    l0_sparsity: float | None
    l1_sparsity: float | None
    fvu: float | None
    dead_neurons: int | None
    learning_rate: float | None
    grad_norm: float | None
    samples_per_second: float | None


class TrainingStatusChanged(Payload):
    """The state of a training changed."""

    training_id: str
    status: TrainingStatus
    step: int


class TrainingCompleted(Payload):
    """All steps are done and the last checkpoint is on disk."""

    training_id: str
    step: int


class TrainingFailed(Payload):
    """The run cannot go on; ``code`` is the stable error code."""

    training_id: str
    step: int
    code: str
    message: str


class CheckpointCreated(Payload):
    """A checkpoint is complete and can be downloaded."""

    training_id: str
    checkpoint_id: str
    step: int
    size_bytes: int
    sha256: str


class AssetProgress(Payload):
    """How far an extraction or a registration is."""

    id: str
    status: AssetStatus
    progress: float | None
    message: str | None = None


class SystemMetrics(Payload):
    """Load of a host or of one GPU. Percentages 0-100, memory in MiB."""

    host: str
    utilization_percent: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    temperature_celsius: float | None = None
    power_watts: float | None = None


Channel = Literal[
    "trainings/{id}/progress",
    "trainings/{id}/checkpoints",
    "datasets/{id}/progress",
    "models/{id}/progress",
    "system/gpu/{n}",
    "system/host",
]


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event: its name on the wire, the channel that carries it, its payload and when it is sent."""

    name: str
    channel: Channel
    payload: type[Payload]
    when: str


EVENTS: dict[str, EventType] = {
    event.name: event
    for event in (
        EventType("training:progress", "trainings/{id}/progress", TrainingProgress, "every log interval"),
        EventType("training:status", "trainings/{id}/progress", TrainingStatusChanged, "at each change of state"),
        EventType("training:completed", "trainings/{id}/progress", TrainingCompleted, "once, at the end"),
        EventType("training:failed", "trainings/{id}/progress", TrainingFailed, "once, when the run is given up"),
        EventType("checkpoint:created", "trainings/{id}/checkpoints", CheckpointCreated, "when it is on disk"),
        EventType("dataset:progress", "datasets/{id}/progress", AssetProgress, "while activations are extracted"),
        EventType("model:progress", "models/{id}/progress", AssetProgress, "while a model is registered"),
        EventType("system:metrics", "system/host", SystemMetrics, "every few seconds; also on system/gpu/{n}"),
    )
}


@dataclass(frozen=True, slots=True)
class Event:
    """An event ready to be sent: JSON-ready ``payload`` for everyone in ``channel``."""

    name: str
    channel: str
    payload: dict[str, Any]


def make_event(name: str, channel: str, payload: Payload) -> Event:
    """Return the event, checked: ``payload`` must be of the registered type, ``channel`` a known one.

    Raises:
        ValueError: unknown event or channel.
        TypeError: the payload of another event.
    """
    kind = EVENTS.get(name)
    if kind is None:
        raise ValueError(f"unknown event {name!r}; known: {', '.join(EVENTS)}")
    if not isinstance(payload, kind.payload):
        raise TypeError(f"{name} carries {kind.payload.__name__}, not {type(payload).__name__}")
    if not is_channel(channel):
        raise ValueError(f"unknown channel {channel!r}")
    return Event(name=name, channel=channel, payload=payload.model_dump(mode="json", exclude_none=False))


def is_channel(name: str) -> bool:
    """Return True for a channel that a client may subscribe to."""
    match name.split("/"):
        case ["trainings", identifier, "progress" | "checkpoints"] | ["datasets" | "models", identifier, "progress"]:
            return identifier.replace("_", "").isalnum()
        case ["system", "gpu", number]:
            return number.isdigit()
        case ["system", "host"]:
            return True
        case _:
            return False
