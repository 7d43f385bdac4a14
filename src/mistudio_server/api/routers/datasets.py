"""Datasets: list, get, register, upload, edit, delete."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanRead, CanWrite, PathId, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.pagination import PageQuery, encode_cursor
from mistudio_server.api.schemas.assets import DatasetCreate, DatasetOut, DatasetPage
from mistudio_server.api.schemas.common import Edit
from mistudio_server.api.uploads import multipart_body, upload_of
from mistudio_server.services import datasets
from mistudio_server.statuses import AssetStatus, DatasetKind

router = APIRouter(prefix=f"{BASE}/datasets", tags=["datasets"])


@router.get("", dependencies=[CanRead], responses=problems())
async def list_datasets(
    studio: StudioPart,
    page: PageQuery,
    status: Annotated[AssetStatus | None, Query(description="Only those in this state.")] = None,
    kind: Annotated[DatasetKind | None, Query(description="Only text, or only activations.")] = None,
) -> DatasetPage:
    """List datasets, newest first unless `sort` says otherwise."""
    found = await datasets.page(studio, replace(page, status=status), kind)
    items = [DatasetOut.model_validate(row) for row in found.items]
    return DatasetPage(items=items, next_cursor=encode_cursor(found.next))


@router.post("", status_code=201, dependencies=[CanWrite], responses=problems(409))
async def register_dataset(studio: StudioPart, body: DatasetCreate) -> DatasetOut:
    """Register files that are below DATA_DIR already: a text (.txt, .jsonl), or a folder of activation shards.

    Shards are `.safetensors` files with one float tensor of shape `[n, d_model]`, all of the same width. The files
    are inspected at once and stay where they are.
    """
    return DatasetOut.model_validate(await datasets.register(studio, body.name, body.path, body.kind, body.description))


@router.post(
    "/upload",
    status_code=201,
    dependencies=[CanWrite],
    responses=problems(409, 507),
    openapi_extra=multipart_body("One .txt, .jsonl or .safetensors file."),
)
async def upload_dataset(studio: StudioPart, request: Request) -> DatasetOut:
    """Upload one file as a dataset. A cut or invalid upload leaves nothing behind."""
    async with upload_of(request, studio) as upload:
        return DatasetOut.model_validate(await datasets.accept_upload(studio, upload))


@router.get("/{dataset_id}", dependencies=[CanRead], responses=problems(404))
async def get_dataset(studio: StudioPart, dataset_id: PathId) -> DatasetOut:
    """Get a dataset; while it is extracted, `progress` says how far it is."""
    return DatasetOut.model_validate(await datasets.get(studio, dataset_id))


@router.patch("/{dataset_id}", dependencies=[CanWrite], responses=problems(404, 409))
async def edit_dataset(studio: StudioPart, dataset_id: PathId, body: Edit) -> DatasetOut:
    """Change a dataset's name or description."""
    return DatasetOut.model_validate(await datasets.edit(studio, dataset_id, body.changes()))


@router.delete("/{dataset_id}", status_code=204, dependencies=[CanWrite], responses=problems(404, 409))
async def delete_dataset(studio: StudioPart, dataset_id: PathId) -> None:
    """Delete a dataset that nothing uses. Files that the studio made go with it; registered files stay."""
    await datasets.delete(studio, dataset_id)
