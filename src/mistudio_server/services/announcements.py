"""Events that the API itself sends, after the transaction that they tell of is committed."""

import time

from mistudio_server.db.models import Dataset, Model, Training
from mistudio_server.observability.context import current_request_id
from mistudio_server.realtime.events import AssetProgress, TrainingStatusChanged, make_event
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.statuses import AssetStatus, TrainingStatus


async def training_status(publisher: Publisher, training: Training) -> None:
    """Tell that a training's status changed."""
    payload = TrainingStatusChanged(
        ts=time.time(),
        request_id=current_request_id(),
        training_id=training.id,
        status=TrainingStatus(training.status),
        step=training.step,
    )
    await publisher.publish(make_event("training:status", f"trainings/{training.id}/progress", payload))


async def asset_status(publisher: Publisher, asset: Dataset | Model) -> None:
    """Tell that a dataset or a model has a new status."""
    kind = "dataset" if isinstance(asset, Dataset) else "model"
    payload = AssetProgress(
        ts=time.time(),
        request_id=current_request_id(),
        id=asset.id,
        status=AssetStatus(asset.status),
        progress=1.0 if asset.status == AssetStatus.READY else 0.0,
    )
    await publisher.publish(make_event(f"{kind}:progress", f"{kind}s/{asset.id}/progress", payload))
