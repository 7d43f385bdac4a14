"""Rules of datasets: registering, uploading, renaming, deleting."""

import asyncio
from pathlib import Path

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Dataset
from mistudio_server.errors import ConflictError, InvalidInputError, NotFoundError
from mistudio_server.ids import new_id
from mistudio_server.repositories import datasets as repository
from mistudio_server.repositories.paging import Page, PageRequest
from mistudio_server.services import announcements, assets
from mistudio_server.services.inspection import SHARD_SUFFIX, DatasetFacts, inspect_dataset
from mistudio_server.services.locations import owned_folder, relative, resolve_inside
from mistudio_server.services.removal import removed_with
from mistudio_server.services.studio import Studio
from mistudio_server.services.uploads import Upload, publish_folder
from mistudio_server.statuses import AssetStatus, DatasetKind


async def page(studio: Studio, request: PageRequest, kind: DatasetKind | None) -> Page[Dataset]:
    """Return one page of datasets."""
    async with studio.database.read() as session:
        return await repository.page(session, request, kind)


async def get(studio: Studio, dataset_id: str) -> Dataset:
    """Return a dataset.

    Raises:
        NotFoundError: there is none.
    """
    async with studio.database.read() as session:
        return _found(await repository.get(session, dataset_id), dataset_id)


async def register(studio: Studio, name: str, path: str, kind: DatasetKind | None, description: str | None) -> Dataset:
    """Register a file or folder below DATA_DIR, which stays where it is.

    Raises:
        InvalidPathError: it is not below DATA_DIR.
        InvalidDatasetError: it cannot be used.
        ConflictError: the name is taken.
    """
    real = await asyncio.to_thread(resolve_inside, studio.data_dir, path)
    facts = await asyncio.to_thread(inspect_dataset, real)
    if kind is not None and kind != facts.kind:
        raise InvalidInputError(
            f"{path!r} holds {facts.kind}, not {kind}.",
            hint="Leave kind out, or give the right one.",
            errors=[{"field": "body.kind", "value": str(kind), "message": f"the files are {facts.kind}"}],
        )
    row = await _add(studio, new_id("dst"), name, relative(studio.data_dir, real), facts, description)
    await announcements.asset_status(studio.publisher, row)
    return row


async def accept_upload(studio: Studio, upload: Upload) -> Dataset:
    """Make a dataset of an upload that has wholly arrived; its file moves to datasets/<id>/.

    Raises:
        InvalidDatasetError: it cannot be used. Nothing is kept.
        ConflictError: the name is taken. Nothing is kept.
    """
    if len(upload.files) != 1:
        raise InvalidInputError(
            f"A dataset is one file; {len(upload.files)} came.",
            hint="Send one .txt, .jsonl or .safetensors file in the part named `file`.",
            errors=[{"field": "body.file", "value": len(upload.files), "message": "exactly one file"}],
        )
    file = upload.files[0]
    facts = await asyncio.to_thread(inspect_dataset, upload.folder if file.suffix == SHARD_SUFFIX else file)
    dataset_id = new_id("dst")
    folder = Path("datasets") / dataset_id
    path = folder if facts.kind is DatasetKind.ACTIVATIONS else folder / file.name
    async with publish_folder(studio.data_dir, upload.folder, folder):
        row = await _add(studio, dataset_id, upload.name, path.as_posix(), facts, upload.description)
    await announcements.asset_status(studio.publisher, row)
    return row


async def _add(
    studio: Studio, dataset_id: str, name: str, path: str, facts: DatasetFacts, description: str | None
) -> Dataset:
    row = Dataset(
        id=dataset_id,
        name=name,
        kind=facts.kind,
        path=path,
        status=AssetStatus.READY,
        rows=facts.rows,
        d_model=facts.d_model,
        size_bytes=facts.size_bytes,
        description=description,
    )
    return await assets.add(studio, row)


async def edit(studio: Studio, dataset_id: str, changes: dict[str, str | None]) -> Dataset:
    """Change name or description.

    Raises:
        NotFoundError: there is none.
        ConflictError: the name is taken.
    """

    async def lock(session: WriteSession) -> Dataset:
        return _found(await repository.lock(session, dataset_id), dataset_id)

    return await assets.edit(studio, lock, changes)


async def delete(studio: Studio, dataset_id: str) -> None:
    """Delete a dataset that nothing uses. Files that the studio made go with it, registered ones stay.

    Raises:
        NotFoundError: there is none.
        ConflictError: a training, an extraction or another dataset needs it, or it is being written.
    """
    async with studio.database.write() as session:
        row = _found(await repository.lock(session, dataset_id), dataset_id)
        if row.status == AssetStatus.PROCESSING:
            raise ConflictError(
                f"Dataset {dataset_id} is being written by an extraction.", hint="Wait until it has ended."
            )
        if used_by := await repository.users(session, row):
            raise assets.in_use("Dataset", dataset_id, used_by)
        await repository.delete(session, row)
        async with removed_with(studio.data_dir, owned_folder(studio.data_dir, row.path, row.id)):
            await session.commit()


def _found(row: Dataset | None, dataset_id: str) -> Dataset:
    if row is None:
        raise NotFoundError(f"There is no dataset {dataset_id!r}.", hint="List them with GET /api/v1/datasets.")
    return row
