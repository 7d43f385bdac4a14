"""From a claimed row to the first line that its process reads: paths made absolute and checked once more."""

from pathlib import Path

from pydantic import ValidationError

from mistudio_server.errors import InvalidInputError, InvalidPathError
from mistudio_server.repositories.runs import ClaimedExtraction, ClaimedTraining
from mistudio_server.services.locations import resolve_inside
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.protocol import ExtractionJob, TrainingJob


def training_assignment(run: ClaimedTraining, data_dir: Path, torch_num_threads: int | None) -> TrainingJob:
    """Return the job of a training.

    Raises:
        InvalidPathError: its dataset is not in DATA_DIR any more.
        InvalidInputError: its hyperparameters do not fit this release.
    """
    try:
        hyperparameters = Hyperparameters.model_validate(run.hyperparameters)
    except ValidationError as error:
        raise InvalidInputError(
            f"the stored hyperparameters do not fit this release: {_first(error)}",
            hint="create the training again with this release",
        ) from error
    return TrainingJob(
        training_id=run.id,
        activations_dir=str(resolve_inside(data_dir, run.dataset_path)),
        checkpoints_dir=str(data_dir / "checkpoints" / run.id),
        hyperparameters=hyperparameters,
        torch_num_threads=torch_num_threads,
        recorded_step=run.recorded_step,
    )


def extraction_assignment(run: ClaimedExtraction, data_dir: Path, torch_num_threads: int | None) -> ExtractionJob:
    """Return the job of an extraction.

    Raises:
        InvalidPathError: the model or the text is not in DATA_DIR any more.
        InvalidInputError: its parameters do not fit this release.
    """
    if run.model_path is None or run.text_path is None:
        raise InvalidPathError(
            "the model or the text of this extraction was deleted", hint="register it again and extract anew"
        )
    try:
        return ExtractionJob.model_validate(
            run.parameters
            | {
                "dataset_id": run.id,
                "model_dir": str(resolve_inside(data_dir, run.model_path)),
                "text_path": str(resolve_inside(data_dir, run.text_path)),
                "output_dir": str(data_dir / run.output_path),
                "torch_num_threads": torch_num_threads,
            }
        )
    except ValidationError as error:
        raise InvalidInputError(
            f"the stored parameters do not fit this release: {_first(error)}", hint="ask for the extraction again"
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
