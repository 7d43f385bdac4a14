"""Tokens, for those with scope admin."""

from datetime import timedelta

from fastapi import APIRouter

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanAdmin, PathId, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.schemas.system import TokenCreate, TokenCreated, TokenList, TokenOut
from mistudio_server.services import tokens

router = APIRouter(prefix=f"{BASE}/tokens", tags=["tokens"], dependencies=[CanAdmin])


@router.get("", responses=problems())
async def list_tokens(studio: StudioPart) -> TokenList:
    """List tokens, revoked ones too. Their secrets are not kept."""
    return TokenList(items=[TokenOut.model_validate(row) for row in await tokens.all_tokens(studio.database)])


@router.post("", status_code=201, responses=problems())
async def create_token(studio: StudioPart, body: TokenCreate) -> TokenCreated:
    """Make a token. `token` is shown this once."""
    lifetime = timedelta(days=body.expires_days) if body.expires_days else None
    made = await tokens.create(studio.database, body.name, body.scopes, lifetime)
    return TokenCreated(**TokenOut.model_validate(made.row).model_dump(), token=made.secret)


@router.delete("/{token_id}", responses=problems(404))
async def revoke_token(studio: StudioPart, token_id: PathId) -> TokenOut:
    """Revoke a token: the next request with it is refused. Its row stays, for the record."""
    return TokenOut.model_validate(await tokens.revoke(studio.database, token_id))
