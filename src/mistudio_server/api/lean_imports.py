"""Keeping a backend small: libraries that others would import for what a backend never does.

python-socketio imports aiohttp, requests, websocket-client and valkey for its clients, and structlog imports rich for
its console. Each of these is optional to them. Left out, a backend starts 0.3 s of CPU earlier and is 25 MB smaller,
three times over on an 8 GB board.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SOCKET_CLIENTS = ("aiohttp", "requests", "websocket", "valkey")
CONSOLE = ("rich",)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Make importing ``names`` fail within the block, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
