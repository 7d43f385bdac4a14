"""``mistudio-server token``: what the command line does with tokens, from start to end of a connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from mistudio_server.db.engine import Database, create_engine, database_url
from mistudio_server.db.models import ApiToken
from mistudio_server.errors import DependencyUnavailableError
from mistudio_server.services import tokens
from mistudio_server.settings import Settings

Result = TypeVar("Result")


def create(settings: Settings, name: str, scopes: Sequence[str], expires_days: int | None) -> dict[str, Any]:
    """Make a token; the answer holds its secret.

    Raises:
        DependencyUnavailableError: the database does not answer.
    """
    lifetime = timedelta(days=expires_days) if expires_days else None
    wanted = [tokens.TokenScope(scope) for scope in scopes]
    made = _with_database(settings, lambda database: tokens.create(database, name, wanted, lifetime))
    return {**_shown(made.row), "token": made.secret}


def listing(settings: Settings) -> list[dict[str, Any]]:
    """Return every token, without secrets.

    Raises:
        DependencyUnavailableError: the database does not answer.
    """
    return [_shown(row) for row in _with_database(settings, tokens.all_tokens)]


def revoke(settings: Settings, token_id: str) -> None:
    """Revoke a token.

    Raises:
        NotFoundError: there is none.
        DependencyUnavailableError: the database does not answer.
    """
    _with_database(settings, lambda database: tokens.revoke(database, token_id))


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database(create_engine(settings, application_name="mistudio cli", pool_size=1))
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        url = database_url(settings).render_as_string(hide_password=True)
        raise DependencyUnavailableError(
            f"DATABASE_URL ({url}) did not carry it out: {reason}.",
            hint="See that PostgreSQL runs there, and run `mistudio-server migrate`.",
        ) from error


def _shown(row: ApiToken) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used_at": row.last_used_at,
    }
