"""Trainings, their metrics and checkpoints."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mistudio_server.api.schemas.common import Id, Name, Request, Resource
from mistudio_server.statuses import TrainingStatus
from mistudio_server.training.hyperparameters import Hyperparameters


class TrainingCreate(Request):
    """Which dictionary to train on which activations."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "topk 8x",
                    "dataset_id": "dst_0192f0c1a2b3c4d5e6f70819",
                    "hyperparameters": {"architecture": "topk", "expansion_factor": 8, "k": 32, "total_steps": 20000},
                }
            ]
        }
    )

    dataset_id: Id = Field(description="A dataset of activations.")
    name: Name | None = Field(None, description="Need not be unique; made up when it is not given.")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class TrainingOut(Resource):
    """A training and how far it is."""

    name: str
    dataset_id: str
    status: TrainingStatus
    step: int = Field(description="Optimizer steps done.")
    total_steps: int
    hyperparameters: dict[str, Any]
    error: str | None = Field(description="Why it failed.")
    error_code: str | None
    attempts: int = Field(description="Deaths of its worker since it was last queued by a person.")
    worker: str | None = Field(description="Instance that runs it.")
    request_id: str | None = Field(description="Request that last changed it.")
    last_metric: dict[str, Any] | None
    heartbeat_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime


class TrainingPage(BaseModel):
    """One page of trainings."""

    items: list[TrainingOut]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class MetricOut(BaseModel):
    """Values after `step` optimizer steps. What was not finite, or is not known, is null."""

    model_config = ConfigDict(from_attributes=True, extra="ignore")

    step: int
    layer_idx: int | None = Field(None, description="Null: the whole training.")
    timestamp: datetime
    loss: float | None = None
    loss_reconstructed: float | None = None
    l0_sparsity: float | None = Field(None, description="Features that fire, per sample.")
    l1_sparsity: float | None = None
    fvu: float | None = Field(None, description="Fraction of variance unexplained.")
    learning_rate: float | None = None
    grad_norm: float | None = None
    gpu_memory_used_mb: float | None = None
    samples_per_second: float | None = None
    dead_neurons: int | None = None


class MetricPage(BaseModel):
    """Metrics in order of their steps."""

    items: list[MetricOut]


class CheckpointOut(Resource):
    """A checkpoint on disk."""

    training_id: str
    step: int
    size_bytes: int
    sha256: str = Field(description="Of sae_weights.safetensors.")


class CheckpointPage(BaseModel):
    """All checkpoints of a training that are kept, newest first."""

    items: list[CheckpointOut]
