"""Databases that restores keep: the one from before, until somebody says that it may go."""

from typing import Any

from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.databases import OurDatabase
from mistudio_ops.operations.restore.result import KeptDatabase

_SIZE = "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s"


def kept_database(access: DatabaseAccess, name: str) -> KeptDatabase | None:
    """Return that database with its size; None when there is none."""
    with access.admin_session() as connection:
        size = _size(connection, name)
    return None if size is None else KeptDatabase(name, "before", size)


def measured(access: DatabaseAccess, found: list[OurDatabase]) -> tuple[KeptDatabase, ...]:
    """Return databases with their sizes."""
    with access.admin_session() as connection:
        return tuple(KeptDatabase(one.name, one.purpose, _size(connection, one.name) or 0) for one in found)


def _size(connection: Any, name: str) -> int | None:
    row = connection.execute(_SIZE, (name,)).fetchone()
    return int(row[0]) if row else None
