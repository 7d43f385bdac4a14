"""Checkpoints: list and download."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanRead, PathId, StudioPart
from mistudio_server.api.openapi import Responses, problems
from mistudio_server.api.ranged_file import RangedFile
from mistudio_server.api.schemas.trainings import CheckpointOut, CheckpointPage
from mistudio_server.services import checkpoint_files, trainings

router = APIRouter(prefix=BASE + "/trainings/{training_id}/checkpoints", tags=["trainings"])
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DOWNLOADS: Responses = {
    200: {
        "description": "The tar archive, or the file.",
        "content": {"application/x-tar": _BINARY, "application/octet-stream": _BINARY, "application/json": {}},
    },
    206: {
        "description": "A range of the file.",
        "content": {"application/octet-stream": _BINARY, "application/json": {}},
    },
    304: {"description": "The copy that If-None-Match names is current."},
}


@router.get("", dependencies=[CanRead], responses=problems(404))
async def list_checkpoints(studio: StudioPart, training_id: PathId) -> CheckpointPage:
    """List the checkpoints of a training that are kept, newest first."""
    rows = await trainings.checkpoints(studio, training_id)
    return CheckpointPage(items=[CheckpointOut.model_validate(row) for row in rows])


@router.get(
    "/{step}/download",
    dependencies=[CanRead],
    responses=_DOWNLOADS | problems(404, 416),
    response_class=Response,
)
async def download_checkpoint(
    studio: StudioPart,
    training_id: PathId,
    step: Annotated[int, Path(ge=0, le=2**31 - 1)],
    request: Request,
    file: Annotated[
        Literal["sae_weights.safetensors", "cfg.json"] | None, Query(description="One file instead of both.")
    ] = None,
) -> Response:
    """Download a checkpoint as SAELens reads it: a tar of `cfg.json` and `sae_weights.safetensors`, or one of them.

    A single file can be had in ranges. The ETag of the archive and of the weights is the weights' sha256.
    """
    row = await trainings.checkpoint(studio, training_id, step)
    etag = f'"{row.sha256}"' if file is None else f'"{row.sha256}-{file}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    name = f"{training_id}-step-{step}"
    if file is not None:
        path = checkpoint_files.single(studio.data_dir, row, file)
        kind = "application/json" if file.endswith(".json") else "application/octet-stream"
        return RangedFile(path, media_type=kind, filename=f"{name}-{file}", headers=headers)
    archive = checkpoint_files.archive(studio.data_dir, row, name)
    headers |= {"Content-Length": str(archive.size), "Content-Disposition": f'attachment; filename="{name}.tar"'}
    return StreamingResponse(archive.chunks(), media_type="application/x-tar", headers=headers)
