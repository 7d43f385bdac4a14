"""SQL of datasets."""

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Dataset, Training
from mistudio_server.repositories.paging import Page, PageRequest, cut_page, page_query
from mistudio_server.statuses import DatasetKind


async def page(session: AsyncSession, request: PageRequest, kind: DatasetKind | None = None) -> Page[Dataset]:
    """Return one page of datasets."""
    filters: list[ColumnElement[bool]] = [Dataset.kind == kind] if kind else []
    rows = (await session.scalars(page_query(Dataset, request, *filters))).all()
    return cut_page(rows, request)


async def get(session: AsyncSession, dataset_id: str) -> Dataset | None:
    """Return the dataset, or None."""
    return await session.get(Dataset, dataset_id)


async def lock(session: WriteSession, dataset_id: str) -> Dataset | None:
    """Return the dataset, locked against every other change until the transaction ends."""
    return await session.get(Dataset, dataset_id, with_for_update=True)


async def hold(session: WriteSession, dataset_id: str) -> Dataset | None:
    """Return the dataset, locked against deletion only: several trainings may begin on it at once."""
    return await session.get(Dataset, dataset_id, with_for_update={"read": True, "key_share": True})


async def users(session: AsyncSession, dataset: Dataset) -> list[str]:
    """Return the ids of some trainings and datasets that need this one."""
    below = Dataset.path.startswith(f"{dataset.path}/", autoescape=True)
    inside = [] if dataset.id not in dataset.path else [Dataset.path == dataset.path, below]
    trainings = select(Training.id).where(Training.dataset_id == dataset.id)
    datasets = select(Dataset.id).where(Dataset.id != dataset.id, or_(Dataset.text_dataset_id == dataset.id, *inside))
    return list((await session.scalars(trainings.union_all(datasets).limit(5))).all())


async def used_by_model(session: AsyncSession, model_id: str) -> list[str]:
    """Return the ids of some datasets that were extracted, or are being extracted, from a model."""
    return list((await session.scalars(select(Dataset.id).where(Dataset.model_id == model_id).limit(5))).all())


async def delete(session: WriteSession, dataset: Dataset) -> None:
    """Delete the row now, so that a foreign key complains before any file is touched."""
    await session.delete(dataset)
    await session.flush()
