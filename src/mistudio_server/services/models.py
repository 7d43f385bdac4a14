"""Rules of models: registering, uploading, renaming, deleting."""

import asyncio
from pathlib import Path

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Model
from mistudio_server.errors import NotFoundError
from mistudio_server.ids import new_id
from mistudio_server.repositories import datasets as dataset_repository
from mistudio_server.repositories import models as repository
from mistudio_server.repositories.paging import Page, PageRequest
from mistudio_server.services import announcements, assets
from mistudio_server.services.inspection import ModelFacts, inspect_model
from mistudio_server.services.locations import owned_folder, relative, resolve_inside
from mistudio_server.services.removal import removed_with
from mistudio_server.services.studio import Studio
from mistudio_server.services.uploads import Upload, publish_folder
from mistudio_server.statuses import AssetStatus


async def page(studio: Studio, request: PageRequest) -> Page[Model]:
    """Return one page of models."""
    async with studio.database.read() as session:
        return await repository.page(session, request)


async def get(studio: Studio, model_id: str) -> Model:
    """Return a model.

    Raises:
        NotFoundError: there is none.
    """
    async with studio.database.read() as session:
        return _found(await repository.get(session, model_id), model_id)


async def register(studio: Studio, name: str, path: str, description: str | None) -> Model:
    """Register a Hugging Face directory below DATA_DIR, which stays where it is.

    Raises:
        InvalidPathError: it is not below DATA_DIR.
        InvalidInputError: it is not a model.
        ConflictError: the name is taken.
    """
    real = await asyncio.to_thread(resolve_inside, studio.data_dir, path)
    facts = await asyncio.to_thread(inspect_model, real)
    row = await _add(studio, new_id("mdl"), name, relative(studio.data_dir, real), facts, description)
    await announcements.asset_status(studio.publisher, row)
    return row


async def accept_upload(studio: Studio, upload: Upload) -> Model:
    """Make a model of an upload that has wholly arrived; its files move to models/<id>/.

    Raises:
        InvalidInputError: it is not a model. Nothing is kept.
        ConflictError: the name is taken. Nothing is kept.
    """
    facts = await asyncio.to_thread(inspect_model, upload.folder)
    model_id = new_id("mdl")
    folder = Path("models") / model_id
    async with publish_folder(studio.data_dir, upload.folder, folder):
        row = await _add(studio, model_id, upload.name, folder.as_posix(), facts, upload.description)
    await announcements.asset_status(studio.publisher, row)
    return row


async def _add(
    studio: Studio, model_id: str, name: str, path: str, facts: ModelFacts, description: str | None
) -> Model:
    row = Model(
        id=model_id,
        name=name,
        path=path,
        status=AssetStatus.READY,
        architecture=facts.architecture,
        d_model=facts.d_model,
        n_layers=facts.n_layers,
        size_bytes=facts.size_bytes,
        description=description,
    )
    return await assets.add(studio, row)


async def edit(studio: Studio, model_id: str, changes: dict[str, str | None]) -> Model:
    """Change name or description.

    Raises:
        NotFoundError: there is none.
        ConflictError: the name is taken.
    """

    async def lock(session: WriteSession) -> Model:
        return _found(await repository.lock(session, model_id), model_id)

    return await assets.edit(studio, lock, changes)


async def delete(studio: Studio, model_id: str) -> None:
    """Delete a model that no dataset was extracted from. Uploaded files go with it, registered ones stay.

    Raises:
        NotFoundError: there is none.
        ConflictError: a dataset names it as its origin.
    """
    async with studio.database.write() as session:
        row = _found(await repository.lock(session, model_id), model_id)
        if used_by := await dataset_repository.used_by_model(session, model_id):
            raise assets.in_use("Model", model_id, used_by)
        await repository.delete(session, row)
        async with removed_with(studio.data_dir, owned_folder(studio.data_dir, row.path, row.id)):
            await session.commit()


def _found(row: Model | None, model_id: str) -> Model:
    if row is None:
        raise NotFoundError(f"There is no model {model_id!r}.", hint="List them with GET /api/v1/models.")
    return row
