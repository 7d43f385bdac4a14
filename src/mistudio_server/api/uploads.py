"""The multipart endpoints' side of HTTP: OpenAPI's body, and the stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from mistudio_server.services.studio import Studio
from mistudio_server.services.uploads import Upload, received


def multipart_body(files: str) -> dict[str, Any]:
    """Return OpenAPI's request body for an upload; it is read as a stream, so FastAPI cannot derive it."""
    schema = {
        "type": "object",
        "required": ["name", "file"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Unique within its kind."},
            "description": {"type": "string", "maxLength": 4000},
            "file": {"type": "string", "format": "binary", "description": files},
        },
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@asynccontextmanager
async def upload_of(request: Request, studio: Studio) -> AsyncIterator[Upload]:
    """Receive the upload of ``request``; what is not published within the block is gone after it."""
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdigit() else None
    content_type = request.headers.get("content-type", "")
    async with received(studio.data_dir, content_type, declared, request.stream()) as upload:
        yield upload
