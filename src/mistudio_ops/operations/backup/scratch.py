"""A scratch copy of a backup's database: made beside the live one, and always dropped again."""

import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.databases import (
    create_database,
    database_name,
    drop_database,
    drop_leftovers,
    require_createdb,
    scratch_claim,
)
from mistudio_ops.errors import OpsError, PreconditionError
from mistudio_ops.operations.backup.loading import LoadError, load, loading_tools, sound_manifest
from mistudio_ops.operations.backup.workplace import Workplace

#: A database that was loaded afresh is smaller than the one that was dumped; its write-ahead log comes on top.
_ROOM = 1.2


@contextmanager
def scratch_copy(
    workplace: Workplace, stored: StoredBackup, access: DatabaseAccess, identities: tuple[Any, ...], *, jobs: int = 1
) -> Iterator[str]:
    """Give the name of a scratch database that holds the backup; it is dropped when the block ends, however it ends.

    What a killed process left is dropped first; what kills us now is dropped by the next.

    Raises:
        OpsError: what ``load`` raises; rights or room are missing.
    """
    manifest = sound_manifest(stored)
    require_createdb(access)
    loading_tools(workplace, access, manifest)
    _check_room(workplace, manifest.database.size_bytes)
    for name in drop_leftovers(access):
        workplace.reporter.note(f"dropped {name}, which a killed command had left")
    name = database_name(access.name, "verify", secrets.token_hex(4))
    with _server_errors(), scratch_claim(access, name):
        try:
            differs = create_database(access, name, manifest.database)
            if differs:
                workplace.reporter.debug(differs)
            load(workplace, stored, access, name, jobs=jobs, identities=identities, analyze=False)
            yield name
        finally:
            _drop(workplace, access, name)


@contextmanager
def _server_errors() -> Iterator[None]:
    """Name what a server that stops or is full raises, at whatever statement it happens."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise LoadError(
            f"the database server failed: {str(error).strip().splitlines()[0]}",
            hint="mistudio-ops health, then try again",
        ) from error


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block has ended. Outside the main thread there is nothing to hold back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(signum: int, frame: FrameType | None) -> None:
        del frame
        arrived.append(signum)

    before = {number: signal.signal(number, remember) for number in map(int, (signal.SIGINT, signal.SIGTERM))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def _drop(workplace: Workplace, access: DatabaseAccess, name: str) -> None:
    """Drop it. A server that is down must not hide why we stopped; the next command drops what is left."""
    try:
        with signals_deferred():
            drop_database(access, name)
    except OpsError as error:
        if not isinstance(error, PreconditionError):
            raise
        workplace.reporter.warning(
            f"the scratch database {name} could not be dropped: {error.message}",
            hint="the next backup verify --level restore drops it",
        )


def _check_room(workplace: Workplace, size: int) -> None:
    environment = workplace.environment
    if environment.database_url is not None or not environment.paths.postgres.exists():
        return
    free = shutil.disk_usage(environment.paths.postgres).free
    if free < size * _ROOM:
        raise PreconditionError(
            f"a scratch copy of {size / 1e9:.1f} GB needs more than the {free / 1e9:.1f} GB that are free at "
            f"{environment.paths.postgres}",
            hint="make room on that disk; mistudio-ops backup verify --level read needs none",
        )
