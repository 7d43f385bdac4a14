"""Models: list, get, register, upload, edit, delete."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanRead, CanWrite, PathId, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.pagination import PageQuery, encode_cursor
from mistudio_server.api.schemas.assets import ModelCreate, ModelOut, ModelPage
from mistudio_server.api.schemas.common import Edit
from mistudio_server.api.uploads import multipart_body, upload_of
from mistudio_server.services import models
from mistudio_server.statuses import AssetStatus

router = APIRouter(prefix=f"{BASE}/models", tags=["models"])


@router.get("", dependencies=[CanRead], responses=problems())
async def list_models(
    studio: StudioPart,
    page: PageQuery,
    status: Annotated[AssetStatus | None, Query(description="Only those in this state.")] = None,
) -> ModelPage:
    """List models, newest first unless `sort` says otherwise."""
    found = await models.page(studio, replace(page, status=status))
    items = [ModelOut.model_validate(row) for row in found.items]
    return ModelPage(items=items, next_cursor=encode_cursor(found.next))


@router.post("", status_code=201, dependencies=[CanWrite], responses=problems(409))
async def register_model(studio: StudioPart, body: ModelCreate) -> ModelOut:
    """Register a Hugging Face directory that is below DATA_DIR already.

    It needs a `config.json` and safetensors weights; pickled weights are refused, because loading them can run code.
    """
    return ModelOut.model_validate(await models.register(studio, body.name, body.path, body.description))


@router.post(
    "/upload",
    status_code=201,
    dependencies=[CanWrite],
    responses=problems(409, 507),
    openapi_extra=multipart_body("A file of the model's directory; repeat the part for each of them."),
)
async def upload_model(studio: StudioPart, request: Request) -> ModelOut:
    """Upload the files of a model's directory, in one request. A cut or invalid upload leaves nothing behind."""
    async with upload_of(request, studio) as upload:
        return ModelOut.model_validate(await models.accept_upload(studio, upload))


@router.get("/{model_id}", dependencies=[CanRead], responses=problems(404))
async def get_model(studio: StudioPart, model_id: PathId) -> ModelOut:
    """Get a model."""
    return ModelOut.model_validate(await models.get(studio, model_id))


@router.patch("/{model_id}", dependencies=[CanWrite], responses=problems(404, 409))
async def edit_model(studio: StudioPart, model_id: PathId, body: Edit) -> ModelOut:
    """Change a model's name or description."""
    return ModelOut.model_validate(await models.edit(studio, model_id, body.changes()))


@router.delete("/{model_id}", status_code=204, dependencies=[CanWrite], responses=problems(404, 409))
async def delete_model(studio: StudioPart, model_id: PathId) -> None:
    """Delete a model that no dataset was extracted from. Uploaded files go with it; registered files stay."""
    await models.delete(studio, model_id)
