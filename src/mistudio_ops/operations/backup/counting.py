"""Counting the rows of every table while they are dumped, in the dump's snapshot, over a connection of its own."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mistudio_ops.domain.backup import TableRows
from mistudio_ops.drivers.catalog import row_counts
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.snapshot import imported_snapshot

if TYPE_CHECKING:
    import psycopg

_CANCEL_SECONDS = 5.0


@contextmanager
def counting(access: DatabaseAccess, snapshot: str) -> Iterator["Future[tuple[TableRows, ...]]"]:
    """Count in a thread; the result is there when the block asks for it. A block that fails ends the counting.

    Raises:
        PreconditionError: no answer, or refused.
        psycopg.Error: the snapshot is gone.
    """
    with imported_snapshot(access, snapshot) as connection, ThreadPoolExecutor(1, "count") as thread:
        counts = thread.submit(row_counts, connection)
        try:
            yield counts
        except BaseException:
            _cancel(connection)
            raise


def _cancel(connection: "psycopg.Connection[Any]") -> None:
    """End the query that runs; the database may be out of reach, and its answer is of no use any more."""
    import psycopg

    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=_CANCEL_SECONDS)
