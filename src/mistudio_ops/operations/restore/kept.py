"""What restores keep: the database from before (a cluster, after one to a moment), until somebody says it may go."""

import shutil
from pathlib import Path
from typing import Any

from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.databases import OurDatabase
from mistudio_ops.engines.state_files import KEPT_CLUSTER
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


def kept_clusters(environment: Environment) -> tuple[KeptDatabase, ...]:
    """Return the clusters from before restores to a moment: folders in the state directory."""
    return tuple(
        KeptDatabase(folder.name, "cluster", _bytes_below(folder))
        for folder in sorted(environment.state_dir.glob(f"{KEPT_CLUSTER}*"))
    )


def remove_cluster(environment: Environment, kept: KeptDatabase) -> None:
    """Remove the folder of a cluster that is kept."""
    shutil.rmtree(environment.state_dir / kept.name)


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _size(connection: Any, name: str) -> int | None:
    row = connection.execute(_SIZE, (name,)).fetchone()
    return int(row[0]) if row else None
