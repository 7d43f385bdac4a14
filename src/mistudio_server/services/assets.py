"""What datasets and models share: a unique name, and the errors about names and uses."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import Dataset, Model
from mistudio_server.errors import ConflictError
from mistudio_server.services.studio import Studio

Asset = TypeVar("Asset", Dataset, Model)


async def add(studio: Studio, row: Asset) -> Asset:
    """Store a new row.

    Raises:
        ConflictError: the name is taken.
    """
    try:
        async with studio.database.write() as session:
            session.add(row)
            await session.flush()
            await session.refresh(row)
    except IntegrityError as error:
        raise name_conflict(kind_of(row), row.name) from error
    return row


async def edit(
    studio: Studio, lock: Callable[[WriteSession], Awaitable[Asset]], changes: Mapping[str, str | None]
) -> Asset:
    """Change name or description of the row that ``lock`` returns, locked.

    Raises:
        ConflictError: the name is taken.
    """
    try:
        async with studio.database.write() as session:
            row = await lock(session)
            kind = kind_of(row)
            for column, value in changes.items():
                setattr(row, column, value)
            await session.flush()
            await session.refresh(row)
    except IntegrityError as error:
        raise name_conflict(kind, str(changes.get("name"))) from error
    return row


def kind_of(row: Dataset | Model) -> str:
    """Return what a user calls it."""
    return "dataset" if isinstance(row, Dataset) else "model"


def name_conflict(kind: str, name: str) -> ConflictError:
    """Return the error for a name that is taken."""
    return ConflictError(
        f"There is a {kind} named {name!r} already.",
        hint="Choose another name, or rename or delete the other one.",
        errors=[{"field": "body.name", "value": name, "message": "is taken"}],
    )


def in_use(kind: str, identifier: str, used_by: list[str]) -> ConflictError:
    """Return the error for deleting what something else needs."""
    return ConflictError(
        f"{kind} {identifier} is used by {', '.join(used_by)}.", hint="Delete those first, then try again."
    )
