"""SQL of trainings, as the API needs it. What workers do to them is in ``runs``."""

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Checkpoint, Training, TrainingMetric, TrainingMetricArchive
from mistudio_server.repositories.paging import Page, PageRequest, cut_page, page_query


async def page(session: AsyncSession, request: PageRequest, dataset_id: str | None = None) -> Page[Training]:
    """Return one page of trainings."""
    filters: list[ColumnElement[bool]] = [Training.dataset_id == dataset_id] if dataset_id else []
    return cut_page((await session.scalars(page_query(Training, request, *filters))).all(), request)


async def get(session: AsyncSession, training_id: str) -> Training | None:
    """Return the training, or None."""
    return await session.get(Training, training_id)


async def lock(session: WriteSession, training_id: str) -> Training | None:
    """Return the training, locked, so that two requests cannot both change its state from the same one."""
    return await session.get(Training, training_id, with_for_update=True)


async def remove(session: WriteSession, training_id: str) -> None:
    """Delete a training with its metrics (which no foreign key ties to it), checkpoints and features."""
    for table in (TrainingMetric, TrainingMetricArchive):
        await session.execute(delete(table).where(table.training_id == training_id))
    await session.execute(delete(Training).where(Training.id == training_id))


async def checkpoints(session: AsyncSession, training_id: str) -> list[Checkpoint]:
    """Return the checkpoints of a training, newest first."""
    query = select(Checkpoint).where(Checkpoint.training_id == training_id).order_by(Checkpoint.step.desc())
    return list((await session.scalars(query)).all())


async def checkpoint(session: AsyncSession, training_id: str, step: int) -> Checkpoint | None:
    """Return one checkpoint, or None."""
    query = select(Checkpoint).where(Checkpoint.training_id == training_id, Checkpoint.step == step)
    return (await session.scalars(query)).one_or_none()
