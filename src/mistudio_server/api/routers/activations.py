"""Extracting activations."""

from fastapi import APIRouter

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanWrite, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.schemas.assets import ActivationsCreate, DatasetOut
from mistudio_server.services.activations import ExtractionRequest, request_extraction

router = APIRouter(prefix=f"{BASE}/activations", tags=["activations"])


@router.post("", status_code=202, dependencies=[CanWrite], responses=problems(404, 409))
async def extract_activations(studio: StudioPart, body: ActivationsCreate) -> DatasetOut:
    """Queue the extraction of a model's residual-stream activations at a layer, over a dataset of text.

    The answer is the dataset that will hold them; it is `ready` when the extraction has ended. Follow it with
    `dataset:progress` on `datasets/{id}/progress`, or by getting it.
    """
    request = ExtractionRequest(
        model_id=body.model_id,
        dataset_id=body.dataset_id,
        name=body.name,
        description=body.description,
        layer=body.layer,
        parameters=body.parameters(),
    )
    return DatasetOut.model_validate(await request_extraction(studio, request))
