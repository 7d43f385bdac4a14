"""The journal of operations: what was begun and what was done, on disk before and after each step (SQLite)."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mistudio_ops.domain.plan import Interrupted

Outcome = Literal["done", "failed", "interrupted", "superseded"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    id INTEGER PRIMARY KEY, verb TEXT NOT NULL, pid INTEGER NOT NULL, begun TEXT NOT NULL,
    ended TEXT, outcome TEXT, plan TEXT NOT NULL, note TEXT
);
CREATE TABLE IF NOT EXISTS steps (
    operation INTEGER NOT NULL REFERENCES operations(id), name TEXT NOT NULL, begun TEXT NOT NULL,
    ended TEXT, outcome TEXT, note TEXT, PRIMARY KEY (operation, name)
);
"""


class Journal:
    """One environment's journal. Safe to use from several threads."""

    def __init__(
        self, path: Path, *, pid: int | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._now = now
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # survives SIGKILL; a power cut may lose the tail
        self._connection.executescript(_SCHEMA)

    def begin(self, verb: str, plan: Any) -> int:
        """Record that ``verb`` starts with this plan, and return the operation's id."""
        cursor = self._run(
            "INSERT INTO operations (verb, pid, begun, plan) VALUES (?, ?, ?, ?)",
            (verb, self._pid, self._stamp(), json.dumps(plan)),
        )
        return int(cursor.lastrowid or 0)

    @contextmanager
    def step(self, operation: int, name: str) -> Iterator[None]:
        """Record a step before and after; an exception marks it as failed. A step may be done again."""
        self._run(
            "INSERT OR REPLACE INTO steps (operation, name, begun) VALUES (?, ?, ?)",
            (operation, name, self._stamp()),
        )
        try:
            yield
        except BaseException as error:
            self._end_step(operation, name, "failed", str(error)[:500])
            raise
        self._end_step(operation, name, "done", None)

    def end(self, operation: int, outcome: Outcome, note: str | None = None) -> None:
        """Record how an operation ended."""
        self._run(
            "UPDATE operations SET ended = ?, outcome = ?, note = ? WHERE id = ?",
            (self._stamp(), outcome, note, operation),
        )

    def interrupted(self, verb: str) -> Interrupted | None:
        """Return the newest operation of that verb if it never ended: its process was killed."""
        row = self._run(
            "SELECT id, begun, ended FROM operations WHERE verb = ? ORDER BY id DESC LIMIT 1", (verb,)
        ).fetchone()
        if row is None or row[2] is not None:
            return None
        steps = self._run("SELECT name, outcome FROM steps WHERE operation = ? ORDER BY rowid", (row[0],)).fetchall()
        done = tuple(name for name, outcome in steps if outcome == "done")
        return Interrupted(int(row[0]), str(row[1]), done, tuple(name for name, outcome in steps if outcome is None))

    def plan(self, operation: int) -> Any:
        """Return what an operation was begun with."""
        row = self._run("SELECT plan FROM operations WHERE id = ?", (operation,)).fetchone()
        return json.loads(row[0])

    def completed(self, verb: str) -> list[Any]:
        """Return the plans of that verb's operations that were done, newest first."""
        rows = self._run(
            "SELECT plan FROM operations WHERE verb = ? AND outcome = 'done' ORDER BY id DESC", (verb,)
        ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _end_step(self, operation: int, name: str, outcome: str, note: str | None) -> None:
        self._run(
            "UPDATE steps SET ended = ?, outcome = ?, note = ? WHERE operation = ? AND name = ?",
            (self._stamp(), outcome, note, operation, name),
        )

    def _run(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        with self._lock:
            return self._connection.execute(statement, values)

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="milliseconds")
