"""What a job's own process and the worker that started it say to each other: one JSON object a line.

Training and extraction run in a child process, so that torch's memory goes with them, a crash takes no worker along
and SIGTERM is ours to handle. The child writes ``Report`` lines to its standard output and reads one job and then
``Command`` lines from its standard input. Nothing here needs torch.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mistudio_server.training.hyperparameters import Hyperparameters


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class TrainingJob(_Message):
    """First line that a training process reads. Paths are absolute.

    ``recorded_step`` is the step through which the database has every metric of this run: a checkpoint that takes more
    than that as recorded is from a later life of the run than the database, which was restored. None: do not judge.
    """

    kind: Literal["training"] = "training"
    training_id: str
    activations_dir: str
    checkpoints_dir: str
    hyperparameters: Hyperparameters
    torch_num_threads: int | None = None
    recorded_step: int | None = None


class ExtractionJob(_Message):
    """First line that an extraction process reads. Paths are absolute."""

    kind: Literal["extraction"] = "extraction"
    dataset_id: str
    model_dir: str
    text_path: str
    output_dir: str
    layer: int = Field(ge=0, description="Hidden state taken: 0 is the embedding, n the output of block n.")
    context_length: int = Field(128, ge=2, le=131_072)
    batch_size: int = Field(16, ge=1, le=4096)
    max_tokens: int | None = Field(None, ge=1)
    shard_rows: int = Field(65_536, ge=1)
    dtype: Literal["float32", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    torch_num_threads: int | None = None


class Started(_Message):
    """The loop begins after ``step``: 0, or the step of the checkpoint that was resumed."""

    type: Literal["started"] = "started"
    step: int
    device: str
    d_model: int
    dictionary_size: int


class Metric(_Message):
    """One row of ``training_metrics``: values after ``step`` optimizer steps.

    A value that is not finite is sent as null. ``timestamp`` is seconds since 1970.
    """

    type: Literal["metric"] = "metric"
    step: int
    timestamp: float
    loss: float | None
    loss_reconstructed: float | None
    l0_sparsity: float | None
    l1_sparsity: float | None
    fvu: float | None
    dead_neurons: int | None
    learning_rate: float | None
    grad_norm: float | None
    gpu_memory_used_mb: float | None
    samples_per_second: float | None


class CheckpointSaved(_Message):
    """A checkpoint is complete on disk: ``path`` is its folder, ``sha256`` the hash of its weights file."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    size_bytes: int
    sha256: str
    removed_steps: list[int] = []


class Warned(_Message):
    """Something was wrong and was dealt with, as a corrupt checkpoint that was passed over."""

    type: Literal["warning"] = "warning"
    code: str
    message: str


class Progress(_Message):
    """How far an extraction is: activation vectors written, of the number expected."""

    type: Literal["progress"] = "progress"
    done: int
    total: int


class Finished(_Message):
    """The last line of a run that ended in order.

    ``completed``: all steps done. ``paused``, ``stopped``: as commanded. ``interrupted``: SIGTERM or the loss of
    the parent; the run is to be queued again. Each is sent after a checkpoint at ``step`` is on disk.
    """

    type: Literal["finished"] = "finished"
    reason: Literal["completed", "paused", "stopped", "interrupted"]
    step: int


class Extracted(_Message):
    """The last line of an extraction that ended in order; the folder has its final name."""

    type: Literal["extracted"] = "extracted"
    rows: int
    d_model: int
    size_bytes: int
    shards: int


class Failed(_Message):
    """The last line of a run that cannot go on. ``code`` is an error code of ``mistudio_server.errors``."""

    type: Literal["failed"] = "failed"
    code: str
    message: str
    hint: str | None = None


Report = Annotated[
    Started | Metric | CheckpointSaved | Warned | Progress | Finished | Extracted | Failed, Field(discriminator="type")
]
REPORT: TypeAdapter[Report] = TypeAdapter(Report)


class Confirm(_Message):
    """Metrics up to and including ``step`` are committed in the database.

    Those that are not confirmed travel in the checkpoint and are sent again after a resume, so that a metric before
    a checkpoint is never lost with the worker.
    """

    command: Literal["confirm"] = "confirm"
    step: int


class Finish(_Message):
    """Checkpoint and end with this reason."""

    command: Literal["finish"] = "finish"
    reason: Literal["paused", "stopped", "interrupted"]


Command = Annotated[Confirm | Finish, Field(discriminator="command")]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
Job = Annotated[TrainingJob | ExtractionJob, Field(discriminator="kind")]
JOB: TypeAdapter[Job] = TypeAdapter(Job)
