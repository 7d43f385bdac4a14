"""SQL of the system's own state: revision, partitions, queues, connections."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from mistudio_server.db.models import Dataset, Training
from mistudio_server.statuses import AssetStatus, TrainingStatus

_REVISION = text("SELECT version_num FROM alembic_version")
_REVISION_TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_PARTITIONS_END = text(
    r"""
    SELECT max((regexp_match(pg_get_expr(child.relpartbound, child.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz)
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = to_regclass('training_metrics')
    """
)


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many jobs of a kind wait, and since when the oldest does."""

    depth: int
    oldest: datetime | None


async def revision(session: AsyncSession) -> str | None:
    """Return the migration that the database is at; None when it is empty."""
    if not await session.scalar(_REVISION_TABLE):
        return None
    found: str | None = await session.scalar(_REVISION)
    return found


async def partitions_end(session: AsyncSession) -> datetime | None:
    """Return the moment up to which metrics have partitions; None when there are none."""
    end: datetime | None = await session.scalar(_PARTITIONS_END)
    return end


async def server_version(session: AsyncSession) -> str:
    """Return PostgreSQL's version."""
    return str(await session.scalar(text("SHOW server_version")))


async def queued_trainings(session: AsyncSession) -> QueueState:
    """Return the queue of trainings."""
    query = select(func.count(), func.min(Training.queued_at)).where(Training.status == TrainingStatus.QUEUED)
    depth, oldest = (await session.execute(query)).one()
    return QueueState(depth, oldest)


async def queued_extractions(session: AsyncSession) -> QueueState:
    """Return the queue of extractions."""
    query = select(func.count(), func.min(Dataset.created_at)).where(Dataset.status == AssetStatus.QUEUED)
    depth, oldest = (await session.execute(query)).one()
    return QueueState(depth, oldest)
