"""SQL of models."""

from sqlalchemy.ext.asyncio import AsyncSession

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Model
from mistudio_server.repositories.paging import Page, PageRequest, cut_page, page_query


async def page(session: AsyncSession, request: PageRequest) -> Page[Model]:
    """Return one page of models."""
    return cut_page((await session.scalars(page_query(Model, request))).all(), request)


async def get(session: AsyncSession, model_id: str) -> Model | None:
    """Return the model, or None."""
    return await session.get(Model, model_id)


async def lock(session: WriteSession, model_id: str) -> Model | None:
    """Return the model, locked against every other change until the transaction ends."""
    return await session.get(Model, model_id, with_for_update=True)


async def hold(session: WriteSession, model_id: str) -> Model | None:
    """Return the model, locked against deletion only."""
    return await session.get(Model, model_id, with_for_update={"read": True, "key_share": True})


async def delete(session: WriteSession, model: Model) -> None:
    """Delete the row now, so that a foreign key complains before any file is touched."""
    await session.delete(model)
    await session.flush()
