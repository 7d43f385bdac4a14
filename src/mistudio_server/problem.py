"""The one place where errors become problem documents (RFC 9457, ``application/problem+json``)."""

import math
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from mistudio_server.errors import BodyTooLargeError, DependencyUnavailableError, InvalidInputError, StudioError
from mistudio_server.observability.context import current_request_id
from mistudio_server.observability.logs import logger

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mistudio:problem:"
RETRY_AFTER_SECONDS = "2"
_ECHO_LIMIT = 200
_PARAMETER = re.compile(r"\{[^}]+\}")
_SECRET_WORDS = ("token", "password", "secret", "authorization", "cookie", "api_key")

log = logger(__name__)


class FieldError(BaseModel):
    """One offending field of a request."""

    field: str = Field(description="Where it is, as in `body.hyperparameters.k`.", examples=["query.limit"])
    value: Any = Field(None, description="What was sent, shortened; secrets are never echoed.", examples=[0])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """What went wrong, why, and what to do next (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:mistudio:problem:not_found",
                "title": "Not found",
                "status": 404,
                "detail": "There is no training 'trn_0192f0c1a2b3c4d5e6f70819'.",
                "instance": "/api/v1/trainings/trn_0192f0c1a2b3c4d5e6f70819",
                "code": "not_found",
                "request_id": "req_0192f0c1a2b3c4d5e6f70819",
                "hint": "List them with GET /api/v1/trainings.",
                "errors": [],
            }
        }
    )

    type: str = Field(description="URN of the kind of problem: `urn:mistudio:problem:` and the code.")
    title: str = Field(description="The kind of problem in words; the same for each occurrence.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What is wrong in this case, and why.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable, machine-readable kind of problem.")
    request_id: str | None = Field(None, description="Finds the request in the logs.")
    hint: str | None = Field(None, description="What to do next.")
    errors: list[FieldError] = Field(default_factory=list, description="Offending fields, when there are any.")


def problem_response(request: Request, error: StudioError, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the response for ``error``; its status also decides on WWW-Authenticate and Retry-After."""
    return problem_for_path(request.url.path, error, headers)


def problem_for_path(path: str, error: StudioError, headers: dict[str, str] | None = None) -> JSONResponse:
    """Do the same where there is no Request object, as in a middleware."""
    return _response(path, error.status, error.code, error.title, error.detail, error.hint, error.errors, headers)


def _response(
    path: str,
    status: int,
    code: str,
    title: str,
    detail: str,
    hint: str | None,
    errors: list[dict[str, Any]],
    headers: dict[str, str] | None,
) -> JSONResponse:
    document = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": _text(detail),
        "instance": _text(path),
        "code": code,
        "request_id": current_request_id(),
        "hint": hint,
        "errors": [_field_error(error) for error in errors],
    }
    return JSONResponse(document, status, headers=_headers(status) | (headers or {}), media_type=MEDIA_TYPE)


def _headers(status: int) -> dict[str, str]:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": 'Bearer realm="mistudio"'}
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": RETRY_AFTER_SECONDS}
        case _:
            return {}


def _field_error(error: dict[str, Any]) -> dict[str, Any]:
    field = str(error.get("field", ""))
    secret = any(word in field.lower() for word in _SECRET_WORDS)
    return {
        "field": _text(field),
        "value": "[hidden]" if secret and error.get("value") is not None else echo(error.get("value")),
        "message": _text(str(error.get("message", ""))),
    }


def echo(value: object) -> object:
    """Return ``value`` as JSON can carry it: short, finite, without lone surrogates and without secret members."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return _text(value if len(value) <= _ECHO_LIMIT else value[:_ECHO_LIMIT] + "...")
        case list() | tuple():
            return f"[a list of {len(value)}]"
        case dict():
            return f"{{an object of {len(value)}}}"
        case _:
            return f"[{type(value).__name__}]"


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error with a problem document."""
    app.add_exception_handler(StudioError, _studio_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(PoolTimeoutError, _database_error)
    app.add_exception_handler(OSError, _os_error)


async def _studio_error(request: Request, error: StudioError) -> JSONResponse:
    return problem_response(request, error)


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    errors = [
        {
            "field": ".".join(str(part) for part in item["loc"]),
            "value": None if item["type"] == "missing" else item.get("input"),
            "message": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    first = errors[0] if errors else {"field": "request", "message": "is invalid"}
    detail = f"{first['field']}: {first['message']}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
    hint = "Correct the fields listed in errors; GET /api/openapi.json describes them."
    return problem_response(request, InvalidInputError(detail, hint=hint, errors=errors))


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Answer what the router itself refuses: no such path, method not allowed, a body that cannot be parsed."""
    status = HTTPStatus(error.status_code)
    path = request.url.path
    headers = dict(error.headers or {})
    detail, hint = str(error.detail), None
    match status:
        case HTTPStatus.BAD_REQUEST:  # FastAPI's answer to bytes that are not text
            return problem_response(
                request, InvalidInputError("The body cannot be read as JSON in UTF-8.", hint="Send a JSON document.")
            )
        case HTTPStatus.NOT_FOUND:
            detail, hint = f"There is nothing at {path}.", "GET /api/openapi.json lists every path."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": _allowed(request)}
            detail, hint = f"{request.method} is not possible at {path}.", f"Use {headers['Allow']}."
    return _response(path, status, status.name.lower(), status.phrase, detail, hint, [], headers)


def _allowed(request: Request) -> str:
    """Return every method of a path: the router only knows those of the first route that matches it."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    path = request.url.path
    methods = paths.get(path) or next(
        (found for template, found in paths.items() if re.fullmatch(_PARAMETER.sub("[^/]+", template), path)), {}
    )
    return ", ".join(sorted(method.upper() for method in methods)) or "GET"


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    """A database that is gone is a 503; any other database error is ours, and is a 500."""
    gone = isinstance(error, PoolTimeoutError | OperationalError | InterfaceError) or getattr(
        error, "connection_invalidated", False
    )
    if not gone:
        return internal_error(request.url.path, error)
    log.warning("database_unavailable", error=type(error).__name__, cause=str(getattr(error, "orig", error))[:500])
    return problem_response(
        request,
        DependencyUnavailableError(
            "PostgreSQL did not answer, so the request was not carried out.",
            hint="Try again in a few seconds; GET /api/health says which part is out.",
        ),
    )


async def _os_error(request: Request, error: Exception) -> JSONResponse:
    """Connection failures that SQLAlchemy does not wrap (refused, reset) are a 503 as well."""
    if isinstance(error, ConnectionError | TimeoutError):
        return await _database_error(request, PoolTimeoutError(str(error)))
    return internal_error(request.url.path, error)


def body_too_large(path: str, limit: int) -> JSONResponse:
    """Return the 413 for a body over ``limit`` bytes."""
    error = BodyTooLargeError(
        f"The body of this request is larger than {limit} bytes.",
        hint="Send less, or raise MAX_BODY_BYTES (JSON) or MAX_UPLOAD_BYTES (files) on the server.",
    )
    return problem_for_path(path, error, {"Connection": "close"})


class _RangeError(StudioError):
    """The Range header is malformed, or beyond the file's end."""

    code = "range_not_satisfiable"
    status = 416
    title = "Range not satisfiable"


def range_error() -> StudioError:
    """Return the error for a Range header that cannot be served."""
    return _RangeError("The Range header is malformed, or beyond the end of the file.", hint="Ask without a Range.")


def internal_error(path: str, error: BaseException) -> JSONResponse:
    """Return a 500 that tells the client nothing but the request's id; the log has the rest."""
    log.error("request_failed", path=path, exc_info=error)
    hint = "Look for the request_id in the server's log, or report it."
    return _response(
        path, 500, "internal_error", "Internal error", "The server failed on this request.", hint, [], None
    )
