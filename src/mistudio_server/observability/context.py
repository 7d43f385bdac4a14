"""The request that the current task works for: its id travels in logs, events and Celery headers."""

import re
from contextvars import ContextVar

from mistudio_server.ids import new_id

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def current_request_id() -> str | None:
    """Return the id of the request being served, or None outside of one."""
    return _request_id.get()


def bind_request_id(value: str | None) -> str:
    """Make ``value`` the current request's id when it is sane (1 to 128 of ``A-Za-z0-9._:-``), else a new one."""
    request_id = value if value and _SANE.fullmatch(value) else new_id("req")
    _request_id.set(request_id)
    return request_id
