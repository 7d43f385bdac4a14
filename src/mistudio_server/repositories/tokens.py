"""SQL of API tokens."""

from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from mistudio_server.db.engine import WriteSession
from mistudio_server.db.models import ApiToken


async def by_hash(session: AsyncSession, token_hash: str) -> ApiToken | None:
    """Return the token that has this hash, or None."""
    return (await session.scalars(select(ApiToken).where(ApiToken.token_hash == token_hash))).one_or_none()


async def all_tokens(session: AsyncSession) -> list[ApiToken]:
    """Return every token, newest first. There are as many as people and scripts: no paging."""
    return list((await session.scalars(select(ApiToken).order_by(ApiToken.created_at.desc(), ApiToken.id))).all())


async def revoke(session: WriteSession, token_id: str, now: datetime) -> ApiToken | None:
    """Revoke a token; a second time changes nothing. Returns it, or None when there is none."""
    query = (
        update(ApiToken)
        .where(ApiToken.id == token_id)
        .values(revoked_at=func.coalesce(ApiToken.revoked_at, now))
        .returning(ApiToken)
    )
    return (await session.scalars(query)).one_or_none()


async def mark_used(session: WriteSession, token_id: str, now: datetime, at_most_every: timedelta) -> None:
    """Note the use of a token, unless one was noted a short while ago."""
    stale = or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at < now - at_most_every)
    await session.execute(update(ApiToken).where(ApiToken.id == token_id, stale).values(last_used_at=now))
