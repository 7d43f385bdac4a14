"""Telling a dead man's switch that the backup ran: GET its URL, or URL/fail when it failed."""

from urllib.parse import urlsplit, urlunsplit

HEARTBEAT_VARIABLE = "MISTUDIO_HEARTBEAT_URL"
SECONDS = 10.0


def beat(url: str, *, ok: bool) -> str | None:
    """Call it; return None, or what went wrong, in words that do not hold the URL (it is a secret)."""
    import httpx

    try:
        response = httpx.get(url if ok else failing(url), timeout=SECONDS, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return type(error).__name__
    return None if response.is_success else f"it answered {response.status_code}"


def failing(url: str) -> str:
    """Return where a failure is told: the path with ``/fail``, before any query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))
