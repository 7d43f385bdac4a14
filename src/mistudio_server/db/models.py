"""The tables. Migrations are written by hand; a test holds them against this metadata.

Metrics carry no foreign key: detaching a partition would lock ``trainings`` exclusively when both sides have one.
The service that deletes a training deletes its metrics.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mistudio_server.statuses import AssetStatus, DatasetKind, TrainingStatus

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _one_of(column: str, values: type[TrainingStatus] | type[AssetStatus] | type[DatasetKind]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {
        str: Text,
        int: Integer,
        float: Double,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


class Timestamps:
    """When a row was made and last changed."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class Model(Timestamps, Base):
    """A language model: a Hugging Face directory below DATA_DIR."""

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint(_one_of("status", AssetStatus), name="status"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    path: Mapped[str]
    status: Mapped[str]
    error: Mapped[str | None]
    architecture: Mapped[str | None]
    d_model: Mapped[int | None]
    n_layers: Mapped[int | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    description: Mapped[str | None]


class Dataset(Timestamps, Base):
    """Text, or activations. ``path`` is relative to DATA_DIR. Those made by an extraction carry its parameters."""

    __tablename__ = "datasets"
    __table_args__ = (
        CheckConstraint(_one_of("status", AssetStatus), name="status"),
        CheckConstraint(_one_of("kind", DatasetKind), name="kind"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    path: Mapped[str]
    status: Mapped[str]
    error: Mapped[str | None]
    rows: Mapped[int | None] = mapped_column(BigInteger)
    d_model: Mapped[int | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    description: Mapped[str | None]
    # Only of an extraction.
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    text_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    extraction: Mapped[dict[str, Any] | None]
    progress: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    claim: Mapped[int] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    request_id: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]


class Training(Timestamps, Base):
    """A run. ``attempts`` counts deaths of its worker; ``claim`` grows with each claim and fences off an old worker."""

    __tablename__ = "trainings"
    __table_args__ = (
        CheckConstraint(_one_of("status", TrainingStatus), name="status"),
        Index(None, "created_at", "id"),
        Index(
            "ix_trainings_live", "status", "heartbeat_at",
            postgresql_where=text("status IN ('queued', 'running', 'pausing', 'stopping')"),
        ),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    status: Mapped[str]
    hyperparameters: Mapped[dict[str, Any]]
    step: Mapped[int] = mapped_column(server_default=text("0"))
    total_steps: Mapped[int]
    error: Mapped[str | None]
    error_code: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    claim: Mapped[int] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    request_id: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    last_metric: Mapped[dict[str, Any] | None]


class Checkpoint(Base):
    """A checkpoint on disk. ``path`` is relative to DATA_DIR."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("training_id", "step"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    training_id: Mapped[str] = mapped_column(ForeignKey("trainings.id", ondelete="CASCADE"))
    step: Mapped[int]
    path: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class _MetricColumns:
    training_id: Mapped[str]
    step: Mapped[int]
    layer_idx: Mapped[int | None] = mapped_column(SmallInteger)
    timestamp: Mapped[datetime]
    loss: Mapped[float | None]
    loss_reconstructed: Mapped[float | None]
    l0_sparsity: Mapped[float | None]
    l1_sparsity: Mapped[float | None]
    fvu: Mapped[float | None]
    learning_rate: Mapped[float | None]
    grad_norm: Mapped[float | None]
    gpu_memory_used_mb: Mapped[float | None]
    samples_per_second: Mapped[float | None]
    dead_neurons: Mapped[int | None]


METRIC_ID = Sequence("training_metrics_id_seq", metadata=Base.metadata, data_type=BigInteger)


class TrainingMetric(_MetricColumns, Base):
    """One row per log interval, partitioned by month. ``layer_idx`` null means the whole training."""

    __tablename__ = "training_metrics"
    __table_args__ = (
        PrimaryKeyConstraint("timestamp", "id"),
        Index(None, "training_id", "step"),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, METRIC_ID, server_default=METRIC_ID.next_value(), sort_order=-1)


class TrainingMetricArchive(_MetricColumns, Base):
    """Metrics older than TRAINING_METRIC_ARCHIVE_DAYS: the same columns, so that a partition can move as it is."""

    __tablename__ = "training_metrics_archive"
    __table_args__ = (
        PrimaryKeyConstraint("timestamp", "id"),
        Index(None, "training_id", "step"),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False, sort_order=-1)


class Feature(Base):
    """A feature of a trained dictionary."""

    __tablename__ = "features"
    __table_args__ = (UniqueConstraint("training_id", "index"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    training_id: Mapped[str] = mapped_column(ForeignKey("trainings.id", ondelete="CASCADE"))
    index: Mapped[int]
    label: Mapped[str | None]
    frequency: Mapped[float | None]
    max_activation: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FeatureActivation(Base):
    """An example that makes a feature fire."""

    __tablename__ = "feature_activations"
    __table_args__ = (Index(None, "feature_id"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    feature_id: Mapped[str] = mapped_column(ForeignKey("features.id", ondelete="CASCADE"))
    activation: Mapped[float]
    position: Mapped[int | None]
    context: Mapped[str | None]


class ApiToken(Base):
    """A bearer token: only its SHA-256 is kept, which is enough because a token has 256 random bits."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    token_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
