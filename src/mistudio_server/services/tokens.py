"""Bearer tokens: ``mst_`` and 43 URL-safe characters (256 random bits), of which only the SHA-256 is kept."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from mistudio_server.db.engine import Database
from mistudio_server.db.models import ApiToken
from mistudio_server.errors import NotFoundError, UnauthenticatedError
from mistudio_server.ids import new_id
from mistudio_server.repositories import tokens as repository

PREFIX = "mst_"
_FORM = re.compile(r"mst_[A-Za-z0-9_-]{43}")
_LAST_USED_RESOLUTION = timedelta(minutes=1)
_HINT = "Make one with `mistudio-server token create --name NAME` and send it as `Authorization: Bearer mst_...`."


class TokenScope(StrEnum):
    """What a token may do. ``write`` includes ``read``, ``admin`` includes both."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_INCLUDED = {
    TokenScope.READ: {TokenScope.READ},
    TokenScope.WRITE: {TokenScope.READ, TokenScope.WRITE},
    TokenScope.ADMIN: {TokenScope.READ, TokenScope.WRITE, TokenScope.ADMIN},
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the token's id (None without tokens) and every scope that it has or implies."""

    token_id: str | None
    name: str
    scopes: frozenset[TokenScope]

    def may(self, scope: TokenScope) -> bool:
        """Return True when this principal has the scope."""
        return scope in self.scopes


#: Whoever reaches a studio that is bound to loopback and asks for no token.
LOCAL = Principal(token_id=None, name="local", scopes=frozenset(TokenScope))


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made. ``secret`` is shown once and never stored."""

    row: ApiToken
    secret: str


def hash_token(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal; with 256 random bits it needs neither salt nor stretching."""
    return hashlib.sha256(token.encode()).hexdigest()


async def create(
    database: Database, name: str, scopes: Iterable[TokenScope], expires_in: timedelta | None = None
) -> NewToken:
    """Make a token."""
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    row = ApiToken(
        id=new_id("tok"),
        name=name,
        token_hash=hash_token(secret),
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=now + expires_in if expires_in else None,
    )
    async with database.write() as session:
        session.add(row)
    return NewToken(row, secret)


async def all_tokens(database: Database) -> list[ApiToken]:
    """Return every token, revoked ones too."""
    async with database.read() as session:
        return await repository.all_tokens(session)


async def revoke(database: Database, token_id: str) -> ApiToken:
    """Revoke a token: the next request with it is refused.

    Raises:
        NotFoundError: there is none.
    """
    async with database.write() as session:
        row = await repository.revoke(session, token_id, datetime.now(UTC))
        if row is None:
            raise NotFoundError(f"There is no token {token_id!r}.", hint="`mistudio-server token list` shows them.")
        return row


async def authenticate(database: Database, token: str) -> Principal:
    """Return who ``token`` belongs to, and note its use at most once a minute.

    Raises:
        UnauthenticatedError: malformed, unknown, revoked or expired. The first two read the same.
    """
    now = datetime.now(UTC)
    row = None
    if _FORM.fullmatch(token):
        async with database.read() as session:
            row = await repository.by_hash(session, hash_token(token))
    if row is None:
        raise UnauthenticatedError("The token is not known here.", hint=_HINT)
    if row.revoked_at is not None:
        raise UnauthenticatedError(f"The token was revoked at {row.revoked_at.isoformat()}.", hint=_HINT)
    if row.expires_at is not None and row.expires_at <= now:
        raise UnauthenticatedError(f"The token expired at {row.expires_at.isoformat()}.", hint=_HINT)
    if row.last_used_at is None or now - row.last_used_at > _LAST_USED_RESOLUTION:
        async with database.write() as session:
            await repository.mark_used(session, row.id, now, _LAST_USED_RESOLUTION)
    return Principal(row.id, row.name, implied(row.scopes))


def missing_token() -> UnauthenticatedError:
    """Return the error for a request without a token."""
    return UnauthenticatedError("This request carries no bearer token.", hint=_HINT)


def implied(scopes: list[str]) -> frozenset[TokenScope]:
    """Return these scopes and those that they include; what is not a scope is passed over."""
    known = [TokenScope(scope) for scope in scopes if scope in set(TokenScope)]
    return frozenset().union(*(_INCLUDED[scope] for scope in known))
