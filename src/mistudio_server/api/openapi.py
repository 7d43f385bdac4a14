"""What OpenAPI says beyond the handlers: problem documents, operation ids, tags."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from mistudio_server.problem import MEDIA_TYPE, Problem

#: Any endpoint that asks for a token and reads its request can answer these.
ALWAYS = (401, 403, 413, 422, 500, 503)
_REASONS = {
    401: "No token, or one that is unknown, revoked or expired.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    409: "Its state, or what uses it, does not allow this.",
    413: "The body is over the limit.",
    416: "The range is not within the file.",
    422: "A value is missing, of the wrong form, or out of range.",
    500: "The server failed; the request's id finds the reason in its log.",
    503: "PostgreSQL or Redis does not answer, the studio is draining, or torch is not installed.",
    507: "The disk has no room.",
}
_REFERENCE = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_TAGS = [
    {"name": "datasets", "description": "Texts, and activations extracted over them."},
    {"name": "models", "description": "Language models: Hugging Face directories with safetensors weights."},
    {"name": "activations", "description": "Extracting the activations of a model's layer over a text."},
    {"name": "trainings", "description": "Training sparse autoencoders: life cycle, metrics, checkpoints."},
    {"name": "tokens", "description": "Bearer tokens (scope admin)."},
    {"name": "system", "description": "Host, GPUs, queues, version."},
    {"name": "health", "description": "For people, load balancers and supervisors; no token."},
]
DESCRIPTION = """\
Trains sparse autoencoders on the activations of language models, and keeps their metrics and checkpoints.

Send `Authorization: Bearer mst_...`; a studio bound to loopback needs no token. Lists are pages: follow `next_cursor`.
Every error is an `application/problem+json` document with a stable `code` and the `request_id` that the logs carry.
Live events come over Socket.IO at `/socket.io/`.
"""


Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int, always: tuple[int, ...] = ALWAYS) -> Responses:
    """Return the error responses of an endpoint: ``statuses`` and those that any can answer."""
    return {
        status: {"description": _REASONS.get(status, HTTPStatus(status).phrase), "content": _REFERENCE}
        for status in sorted({*statuses, *always})
    }


def operation_id(route: APIRoute) -> str:
    """Return the handler's name: stable, unique, and what a generated client will call it."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of ``app``, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
        )
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(problem.pop("$defs", {}))
        components["Problem"] = problem
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
