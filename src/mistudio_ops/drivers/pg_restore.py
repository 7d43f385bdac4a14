"""One run of pg_restore: fed through its stdin or a passed file, watched through what it says, ended with its children.

``pg_restore: error:`` lines are kept; the rest of ``--verbose`` tells the progress.
"""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mistudio_ops.drivers.archive_file import Sink
from mistudio_ops.drivers.database_access import Login
from mistudio_ops.drivers.pg_tools import PgTools, Streams

#: With --verbose: each is said once for each table whose rows the archive holds, when they are begun.
_TABLE = re.compile(rb'pg_restore: processing data for table "(.+)"')
_OBJECT = re.compile(rb'pg_restore: creating (.+?) "(.+)"')
_KEPT_LINES = 12
APPLICATION = "mistudio-ops restore"

Feed = Callable[[Sink], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended. ``fed`` is False when it ended before it had read everything."""

    returncode: int
    errors: str
    tables: tuple[str, ...]
    fed: bool = True

    @property
    def killed(self) -> bool:
        """True when a signal ended it."""
        return self.returncode < 0


@dataclass(slots=True)
class Listener:
    """What is told while it runs, from another thread: a table's rows are begun, an index or the like is made."""

    table: Callable[[str], None] = field(default=lambda _: None)
    made: Callable[[str], None] = field(default=lambda _: None)


def run_pg_restore(
    tools: PgTools,
    arguments: Sequence[str],
    login: Login,
    dbname: str,
    *,
    feed: Feed | None = None,
    pass_fds: Sequence[int] = (),
    listener: Listener | None = None,
) -> Finished:
    """Run it to its end; what ``feed`` writes is its stdin. It is killed, with its workers, when we are interrupted.

    Raises:
        BaseException: what ``feed`` raises, other than the broken pipe of a pg_restore that ended early.
    """
    streams = Streams(subprocess.PIPE if feed else None, subprocess.DEVNULL, subprocess.PIPE, tuple(pass_fds))
    process = tools.start(
        "pg_restore", ["--verbose", "--no-password", *arguments], login, dbname, application=APPLICATION,
        streams=streams,
    )  # fmt: skip
    said = _Said(listener or Listener())
    reader = threading.Thread(target=said.read, args=(process,), daemon=True)
    reader.start()
    try:
        fed = feed is None or _feed(process, feed)
        process.wait()
        reader.join()
    finally:
        _end(process)
        reader.join()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
    return Finished(process.returncode, said.errors(), tuple(said.tables), fed)


def _feed(process: "subprocess.Popen[bytes]", feed: Feed) -> bool:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        feed(process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what still runs: the workers of a leader that was killed go on writing otherwise."""
    if process.poll() is None or process.returncode < 0:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Said:
    """Sorts the lines of stderr."""

    def __init__(self, listener: Listener) -> None:
        self.tables: list[str] = []
        self._kept: list[str] = []
        self._listener = listener
        self._in_error = False

    def read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stderr is not None  # noqa: S101 - it was asked for
        for line in process.stderr:
            self._take(line.rstrip())

    def errors(self) -> str:
        """Return what went wrong, on one line."""
        return " ".join(" ".join(self._kept).split())

    def _take(self, line: bytes) -> None:
        if table := _TABLE.match(line):
            self.tables.append(_text(table[1]))
            self._listener.table(self.tables[-1])
        elif made := _OBJECT.match(line):
            self._listener.made(f"{_text(made[1])} {_text(made[2])}")
        # Lines without the program's name go on with what the line before began.
        ours = line.startswith(b"pg_restore: ")
        self._in_error = b"error:" in line or b"FATAL" in line or (self._in_error and not ours)
        if self._in_error and len(self._kept) < _KEPT_LINES:
            self._kept.append(_text(line).removeprefix("pg_restore: "))


def _text(line: bytes) -> str:
    return line.decode(errors="replace")
