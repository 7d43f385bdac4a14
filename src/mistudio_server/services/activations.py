"""Asking for an extraction: a dataset of activations that a worker will write."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Dataset, Model
from mistudio_server.errors import ConflictError, InvalidInputError, NotFoundError
from mistudio_server.ids import new_id
from mistudio_server.observability.context import current_request_id
from mistudio_server.repositories import datasets, models
from mistudio_server.services import announcements
from mistudio_server.services.assets import name_conflict
from mistudio_server.services.capability import require_training
from mistudio_server.services.studio import Studio
from mistudio_server.statuses import AssetStatus, DatasetKind


@dataclass(frozen=True, slots=True)
class ExtractionRequest:
    """What to extract. ``parameters`` are those of ``ExtractionJob``: layer, context_length, batch_size, ..."""

    model_id: str
    dataset_id: str
    name: str | None
    description: str | None
    layer: int
    parameters: dict[str, Any]


async def request_extraction(studio: Studio, request: ExtractionRequest) -> Dataset:
    """Queue an extraction: the dataset that it will fill, with status ``queued``.

    Raises:
        TrainingUnavailableError: no torch.
        NotFoundError: no such model or dataset.
        ConflictError: one of them is not ready, or the name is taken.
        InvalidInputError: no such layer, or the dataset is not text.
    """
    require_training(studio.torch_installed())
    try:
        async with studio.database.write() as session:
            row = await _queue(session, request)
    except IntegrityError as error:
        raise name_conflict("dataset", str(request.name)) from error
    await studio.jobs.wake("extraction", current_request_id())
    await announcements.asset_status(studio.publisher, row)
    return row


async def _queue(session: WriteSession, request: ExtractionRequest) -> Dataset:
    dataset_id = new_id("dst")
    model, text = await _sources(session, request)
    _check(model, text, request.layer)
    row = Dataset(
        id=dataset_id,
        name=request.name or f"{model.name} layer {request.layer} on {text.name} ({dataset_id[-6:]})",
        kind=DatasetKind.ACTIVATIONS,
        path=f"activations/{dataset_id}",
        status=AssetStatus.QUEUED,
        description=request.description,
        model_id=model.id,
        text_dataset_id=text.id,
        extraction=request.parameters,
        progress=0.0,
        request_id=current_request_id(),
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def _sources(session: WriteSession, request: ExtractionRequest) -> tuple[Model, Dataset]:
    model = await models.hold(session, request.model_id)
    if model is None:
        raise _missing("model", "model_id", request.model_id)
    text = await datasets.hold(session, request.dataset_id)
    if text is None:
        raise _missing("dataset", "dataset_id", request.dataset_id)
    return model, text


def _check(model: Model, text: Dataset, layer: int) -> None:
    for thing in (model, text):
        if thing.status != AssetStatus.READY:
            raise ConflictError(f"{thing.id} is {thing.status}, not ready.", hint="Wait until it is ready.")
    if text.kind != DatasetKind.TEXT:
        raise InvalidInputError(
            f"Dataset {text.id} holds {text.kind}: activations are extracted over a dataset of text.",
            hint="List texts with GET /api/v1/datasets?kind=text.",
            errors=[{"field": "body.dataset_id", "value": text.id, "message": "must be a text dataset"}],
        )
    if model.n_layers is not None and layer > model.n_layers:
        raise InvalidInputError(
            f"Model {model.name!r} has {model.n_layers} layers, so there is no layer {layer}.",
            hint=f"Use 0 (the embedding) to {model.n_layers} (the output of the last block).",
            errors=[{"field": "body.layer", "value": layer, "message": f"must be 0 to {model.n_layers}"}],
        )


def _missing(kind: str, field: str, identifier: str) -> NotFoundError:
    return NotFoundError(
        f"There is no {kind} {identifier!r}.",
        hint=f"List them with GET /api/v1/{kind}s.",
        errors=[{"field": f"body.{field}", "value": identifier, "message": "does not exist"}],
    )
