"""What handlers ask for: the studio, and a principal with a scope."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from mistudio_server.api.schemas.common import ID_PATTERN
from mistudio_server.errors import ForbiddenError, UnauthenticatedError
from mistudio_server.services import tokens
from mistudio_server.services.studio import Studio
from mistudio_server.services.tokens import LOCAL, Principal, TokenScope

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    bearerFormat="mst_...",
    description="A token of `mistudio-server token create`. Not needed where the studio is bound to loopback.",
)
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def get_studio(request: Request) -> Studio:
    """Return the parts that this process works with."""
    studio: Studio = request.app.state.studio
    return studio


StudioPart = Annotated[Studio, Depends(get_studio)]
PathId = Annotated[str, Path(pattern=ID_PATTERN, examples=["trn_0192f0c1a2b3c4d5e6f70819"])]


async def principal(
    request: Request, studio: StudioPart, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks. A token that is sent is checked even where none is needed.

    Raises:
        UnauthenticatedError: no token where one is needed, or one that is not valid.
    """
    if credentials is not None:
        return await tokens.authenticate(studio.database, credentials.credentials)
    if studio.settings.needs_token or "authorization" in request.headers:
        raise tokens.missing_token()
    _refuse_foreign_names(request)
    return LOCAL


def _refuse_foreign_names(request: Request) -> None:
    """Refuse a tokenless request that names another host: a web page elsewhere may have its name point to loopback."""
    name = request.url.hostname
    if name not in _LOOPBACK_NAMES:
        raise UnauthenticatedError(
            f"Without a token this studio answers only to localhost, not to {name!r}.",
            hint="Open it as http://localhost, or send a token (`mistudio-server token create --name NAME`).",
        )


def require(scope: TokenScope) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency that lets only principals with ``scope`` pass."""

    async def check(who: Annotated[Principal, Depends(principal)]) -> Principal:
        if not who.may(scope):
            raise ForbiddenError(
                f"The token {who.name!r} lacks the scope {scope.value}.",
                hint=f"Make one with `mistudio-server token create --name NAME --scopes {scope.value}`.",
            )
        return who

    return check


CanRead = Depends(require(TokenScope.READ))
CanWrite = Depends(require(TokenScope.WRITE))
CanAdmin = Depends(require(TokenScope.ADMIN))
