"""Trainings: list, get, create, pause, resume, stop, delete, metrics."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanRead, CanWrite, PathId, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.pagination import PageQuery, encode_cursor
from mistudio_server.api.schemas.common import ID_PATTERN
from mistudio_server.api.schemas.trainings import MetricOut, MetricPage, TrainingCreate, TrainingOut, TrainingPage
from mistudio_server.services import training_metrics, trainings
from mistudio_server.statuses import TrainingStatus

router = APIRouter(prefix=f"{BASE}/trainings", tags=["trainings"])
_MAX_STEP = 2**31 - 1
_MAX_LAYER = 2**15 - 1


@router.get("", dependencies=[CanRead], responses=problems())
async def list_trainings(
    studio: StudioPart,
    page: PageQuery,
    status: Annotated[TrainingStatus | None, Query(description="Only those in this state.")] = None,
    dataset_id: Annotated[str | None, Query(pattern=ID_PATTERN, description="Only those on this dataset.")] = None,
) -> TrainingPage:
    """List trainings, newest first unless `sort` says otherwise."""
    found = await trainings.page(studio, replace(page, status=status), dataset_id)
    items = [TrainingOut.model_validate(row) for row in found.items]
    return TrainingPage(items=items, next_cursor=encode_cursor(found.next))


@router.post("", status_code=201, dependencies=[CanWrite], responses=problems(404, 409))
async def create_training(studio: StudioPart, body: TrainingCreate) -> TrainingOut:
    """Queue the training of a sparse autoencoder on a dataset of activations.

    It runs as soon as a worker has room, and survives a restart of every part of the studio. Follow it with
    `training:progress` on `trainings/{id}/progress`.
    """
    return TrainingOut.model_validate(await trainings.create(studio, body.name, body.dataset_id, body.hyperparameters))


@router.get("/{training_id}", dependencies=[CanRead], responses=problems(404))
async def get_training(studio: StudioPart, training_id: PathId) -> TrainingOut:
    """Get a training."""
    return TrainingOut.model_validate(await trainings.get(studio, training_id))


@router.delete("/{training_id}", status_code=204, dependencies=[CanWrite], responses=problems(404, 409))
async def delete_training(studio: StudioPart, training_id: PathId) -> None:
    """Delete a training with its metrics and checkpoints. One that a worker runs must be stopped first."""
    await trainings.delete(studio, training_id)


@router.post("/{training_id}/pause", status_code=202, dependencies=[CanWrite], responses=problems(404, 409))
async def pause_training(studio: StudioPart, training_id: PathId) -> TrainingOut:
    """Pause a training: its worker makes a checkpoint first (`pausing`), then it is `paused`."""
    return TrainingOut.model_validate(await trainings.request_change(studio, training_id, "pause"))


@router.post("/{training_id}/resume", status_code=202, dependencies=[CanWrite], responses=problems(404, 409))
async def resume_training(studio: StudioPart, training_id: PathId) -> TrainingOut:
    """Queue a paused, stopped or failed training again; it goes on after its last checkpoint, with the same numbers."""
    return TrainingOut.model_validate(await trainings.request_change(studio, training_id, "resume"))


@router.post("/{training_id}/stop", status_code=202, dependencies=[CanWrite], responses=problems(404, 409))
async def stop_training(studio: StudioPart, training_id: PathId) -> TrainingOut:
    """Stop a training: its worker makes a checkpoint first (`stopping`), then it is `cancelled`."""
    return TrainingOut.model_validate(await trainings.request_change(studio, training_id, "stop"))


@router.get("/{training_id}/metrics", dependencies=[CanRead], responses=problems(404))
async def list_training_metrics(
    studio: StudioPart,
    training_id: PathId,
    start_step: Annotated[int | None, Query(ge=0, le=_MAX_STEP, description="From this step on.")] = None,
    end_step: Annotated[int | None, Query(ge=0, le=_MAX_STEP, description="Up to and including this step.")] = None,
    since: Annotated[
        int | None, Query(ge=0, lt=_MAX_STEP, description="Last step that you have: only those after it.")
    ] = None,
    max_points: Annotated[
        int, Query(ge=4, le=20_000, description="Thinned to so many; first, last and extremes of the loss stay.")
    ] = 2000,
    layer_idx: Annotated[int | None, Query(ge=0, le=_MAX_LAYER, description="Only of this layer.")] = None,
    include_archived: Annotated[bool, Query(description="Also those that moved to the archive.")] = False,
) -> MetricPage:
    """Get the metrics of a training, in order of their steps."""
    window = training_metrics.Window(start_step, end_step, since, max_points, layer_idx, include_archived)
    rows = await training_metrics.fetch(studio, training_id, window)
    return MetricPage(items=[MetricOut.model_validate(row) for row in rows])
