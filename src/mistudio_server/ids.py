"""Identifiers: a prefix that names the kind, then a time-ordered random part.

Time order keeps a B-tree's inserts at its right edge and lets a list be paged by identifier alone.
"""

import secrets
import time

_RANDOM_BYTES = 6


def new_id(prefix: str) -> str:
    """Return ``<prefix>_`` and 24 hexadecimal digits: 12 of milliseconds since 1970, 12 random."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(_RANDOM_BYTES)}"
