"""Failures that only a training or an extraction can have."""

from mistudio_server.errors import StudioError


class TrainingDivergedError(StudioError):
    """The loss is no longer a finite number."""

    code = "training_diverged"
    status = 422
    title = "Training diverged"


class OutOfMemoryError(StudioError):
    """The device or the machine has no memory left for the run."""

    code = "out_of_memory"
    status = 507
    title = "Out of memory"


class ModelUnusableError(StudioError):
    """A model's folder lacks a file, or holds one that cannot be used."""

    code = "invalid_model"
    status = 422
    title = "Invalid model"
