"""One small HTTP request, for gates that ask many times a second: http.client loads in 10 ms, httpx in 150."""

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit

_BODY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: str


def get(url: str, *, timeout: float) -> Answer | None:
    """Return the answer to GET ``url``; None when there was none within ``timeout`` seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.read(_BODY_LIMIT).decode("utf-8", errors="replace"))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
