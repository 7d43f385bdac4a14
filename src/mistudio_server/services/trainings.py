"""Rules of trainings: creating, pausing, resuming, stopping, deleting. Running them is the workers' part."""

from datetime import UTC, datetime

from mistudio_server.db.models import Checkpoint, Dataset, Training
from mistudio_server.errors import ConflictError, InvalidInputError, NotFoundError
from mistudio_server.ids import new_id
from mistudio_server.observability.context import current_request_id
from mistudio_server.repositories import datasets, trainings
from mistudio_server.repositories.paging import Page, PageRequest
from mistudio_server.services import announcements
from mistudio_server.services.capability import require_training
from mistudio_server.services.removal import removed_with
from mistudio_server.services.studio import Studio
from mistudio_server.statuses import (
    ACTIVE,
    ENDED,
    PAUSE,
    RESUME,
    STOP,
    AssetStatus,
    DatasetKind,
    SaeArchitecture,
    TrainingStatus,
)
from mistudio_server.training.hyperparameters import Hyperparameters

_WISHES = {"pause": PAUSE, "resume": RESUME, "stop": STOP}
_MAX_FEATURES = 1_048_576


async def page(studio: Studio, request: PageRequest, dataset_id: str | None) -> Page[Training]:
    """Return one page of trainings."""
    async with studio.database.read() as session:
        return await trainings.page(session, request, dataset_id)


async def get(studio: Studio, training_id: str) -> Training:
    """Return a training.

    Raises:
        NotFoundError: there is none.
    """
    async with studio.database.read() as session:
        return _found(await trainings.get(session, training_id), training_id)


async def create(studio: Studio, name: str | None, dataset_id: str, hyperparameters: Hyperparameters) -> Training:
    """Queue a training on a dataset of activations.

    Raises:
        TrainingUnavailableError: no torch.
        NotFoundError: no such dataset.
        ConflictError: the dataset is not ready.
        InvalidInputError: it holds no activations, or the hyperparameters do not fit its width.
    """
    require_training(studio.torch_installed())
    training_id = new_id("trn")
    async with studio.database.write() as session:
        dataset = _usable(await datasets.hold(session, dataset_id), dataset_id)
        _check_fit(hyperparameters, dataset)
        row = Training(
            id=training_id,
            name=name or f"{hyperparameters.architecture} on {dataset.name}",
            dataset_id=dataset_id,
            status=TrainingStatus.QUEUED,
            hyperparameters=hyperparameters.model_dump(mode="json"),
            total_steps=hyperparameters.total_steps,
            request_id=current_request_id(),
            queued_at=datetime.now(UTC),
        )
        session.add(row)
        await session.flush()
        await session.refresh(row)
    await studio.jobs.wake("training", current_request_id())
    await announcements.training_status(studio.publisher, row)
    return row


async def request_change(studio: Studio, training_id: str, wish: str) -> Training:
    """Carry out ``pause``, ``resume`` or ``stop``, or leave it to the worker that runs the training.

    Raises:
        NotFoundError: there is none.
        ConflictError: its state does not allow it. Of two that come at once, the second meets the first's state.
    """
    if wish == "resume":
        require_training(studio.torch_installed())
    async with studio.database.write() as session:
        row = _found(await trainings.lock(session, training_id), training_id)
        _apply(row, wish, datetime.now(UTC))
        await session.flush()
        await session.refresh(row)
    if row.status == TrainingStatus.QUEUED:
        await studio.jobs.wake("training", current_request_id())
    await announcements.training_status(studio.publisher, row)
    return row


def _apply(row: Training, wish: str, now: datetime) -> None:
    before = TrainingStatus(row.status)
    after = _WISHES[wish].get(before)
    if after is None:
        raise _not_possible(row.id, before, wish)
    row.status = after
    row.request_id = current_request_id()
    if after is TrainingStatus.QUEUED:
        row.queued_at, row.ended_at, row.attempts = now, None, 0
        row.error = row.error_code = row.worker = None
    elif after in ENDED:
        row.ended_at = now


def possible(status: TrainingStatus) -> list[str]:
    """Return what can be done with a training in this state."""
    wishes = [wish for wish, table in _WISHES.items() if status in table]
    return wishes if status in ACTIVE else [*wishes, "delete"]


def _not_possible(training_id: str, status: TrainingStatus, wish: str) -> ConflictError:
    choices = " or ".join(possible(status)) or "nothing until the worker has carried out the last request"
    return ConflictError(
        f"Training {training_id} is {status}, so it is not possible to {wish} it.", hint=f"Possible now: {choices}."
    )


async def delete(studio: Studio, training_id: str) -> None:
    """Delete a training that no worker runs, with its metrics and checkpoints.

    Raises:
        NotFoundError: there is none.
        ConflictError: a worker runs it.
    """
    async with studio.database.write() as session:
        row = _found(await trainings.lock(session, training_id), training_id)
        status = TrainingStatus(row.status)
        if status in ACTIVE:
            raise _not_possible(training_id, status, "delete")
        await trainings.remove(session, training_id)
        async with removed_with(studio.data_dir, studio.data_dir / "checkpoints" / training_id):
            await session.commit()


async def checkpoints(studio: Studio, training_id: str) -> list[Checkpoint]:
    """Return the checkpoints of a training, newest first.

    Raises:
        NotFoundError: there is no such training.
    """
    async with studio.database.read() as session:
        found = await trainings.checkpoints(session, training_id)
        if not found:
            _found(await trainings.get(session, training_id), training_id)
        return found


async def checkpoint(studio: Studio, training_id: str, step: int) -> Checkpoint:
    """Return one checkpoint.

    Raises:
        NotFoundError: there is none at this step.
    """
    async with studio.database.read() as session:
        found = await trainings.checkpoint(session, training_id, step)
    if found is None:
        raise NotFoundError(
            f"Training {training_id!r} has no checkpoint at step {step}.",
            hint=f"List them with GET /api/v1/trainings/{training_id}/checkpoints.",
        )
    return found


def _usable(dataset: Dataset | None, dataset_id: str) -> Dataset:
    if dataset is None:
        raise NotFoundError(
            f"There is no dataset {dataset_id!r}.",
            hint="List those of activations with GET /api/v1/datasets?kind=activations.",
            errors=[{"field": "body.dataset_id", "value": dataset_id, "message": "does not exist"}],
        )
    if dataset.kind != DatasetKind.ACTIVATIONS:
        raise InvalidInputError(
            f"Dataset {dataset_id} holds {dataset.kind}: a training needs activations.",
            hint="Extract activations over this text first: POST /api/v1/activations.",
            errors=[{"field": "body.dataset_id", "value": dataset_id, "message": "must hold activations"}],
        )
    if dataset.status != AssetStatus.READY:
        raise ConflictError(
            f"Dataset {dataset_id} is {dataset.status}, not ready.",
            hint=dataset.error or f"Wait until GET /api/v1/datasets/{dataset_id} says ready.",
        )
    return dataset


def _check_fit(hyperparameters: Hyperparameters, dataset: Dataset) -> None:
    """Refuse what the ranges alone cannot: sizes that depend on the width of the dataset."""
    if dataset.d_model is None:
        raise ConflictError(f"The width of dataset {dataset.id} is not known.", hint="Register it again.")
    features = hyperparameters.features_for(dataset.d_model)
    if features > _MAX_FEATURES:
        _refuse(
            "expansion_factor", hyperparameters.expansion_factor, f"gives {features} features, over {_MAX_FEATURES}"
        )
    if hyperparameters.architecture is SaeArchitecture.TOPK and hyperparameters.k > features:
        _refuse("k", hyperparameters.k, f"must not be more than the dictionary size, {features}")
    if dataset.rows is not None and hyperparameters.batch_size > dataset.rows:
        _refuse("batch_size", hyperparameters.batch_size, f"must not be more than the dataset's {dataset.rows} rows")


def _refuse(field: str, value: float, message: str) -> None:
    raise InvalidInputError(
        f"hyperparameters.{field} = {value}: {message}.",
        hint=f"Change hyperparameters.{field} or choose another dataset.",
        errors=[{"field": f"body.hyperparameters.{field}", "value": value, "message": message}],
    )


def _found(row: Training | None, training_id: str) -> Training:
    if row is None:
        raise NotFoundError(f"There is no training {training_id!r}.", hint="List them with GET /api/v1/trainings.")
    return row
