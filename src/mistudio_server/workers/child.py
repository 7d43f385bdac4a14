"""One training or extraction process, seen from the worker: its reports, its standard error, its end."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import structlog
from pydantic import ValidationError

from mistudio_server.training.protocol import REPORT, Command, ExtractionJob, Finish, Metric, Report, TrainingJob

#: Reports read but not yet recorded. When it is full nothing more is read, the pipe fills, and the child waits.
QUEUE_LENGTH = 1000
_LINE_BYTES = 1 << 20
_KEPT_LINES = 8
_EXIT_SECONDS = 10.0
_READ_OUT_SECONDS = 1.0
#: The kernel's choice when memory runs out: the child rather than PostgreSQL or us. Raising it needs no privilege.
_OOM_SCORE = "600"
#: The child needs no access to PostgreSQL or Redis.
_SECRETS = ("DATABASE_URL", "REDIS_URL", "REDIS_WS_URL", "INTERNAL_TOKEN")

#: OpenMP's threads spin while they wait for each other, which starves them when anything else wants a core: on 2 cores
#: with one other process busy, 600 small steps took 13.8 s, and 6.6 s with a short spin (4.1 s and 4.9 s on an idle
#: machine; larger steps are as fast). An operator's own value stays.
_SPIN = {"GOMP_SPINCOUNT": "1000"}

FinishReason = Literal["paused", "stopped", "interrupted"]


class Child:
    """A started child. ``close`` must be awaited in the end; it leaves no process behind."""

    def __init__(self, process: asyncio.subprocess.Process, queue_length: int = QUEUE_LENGTH) -> None:
        self._log = structlog.stdlib.get_logger(__name__).bind(child_pid=process.pid)
        self._process = process
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue(queue_length)
        self._listening = True
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._readers = [asyncio.create_task(self._read_reports()), asyncio.create_task(self._read_errors())]
        self.asked_to_finish: FinishReason | None = None

    @classmethod
    async def start(
        cls, argv: Sequence[str], job: TrainingJob | ExtractionJob, environment: Mapping[str, str] = os.environ
    ) -> "Child":
        """Start the process and hand it its job.

        Raises:
            OSError: it cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=_SPIN | {name: value for name, value in environment.items() if name not in _SECRETS},
            # Signals to our group are for us alone: we decide what they mean for the child.
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(_OOM_SCORE)
        child = cls(process)
        await child._write(job.model_dump_json())
        return child

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def batch(self, *, linger: float, limit: int) -> list[Report]:
        """Return the next reports in order; an empty list is the end of the output.

        Metrics are gathered for ``linger`` seconds or up to ``limit``, so that they share a commit. Any other report
        ends the batch at once.
        """
        first = await self._reports.get()
        if first is None:
            self._reports.put_nowait(None)
            return []
        batch: list[Report] = [first]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger):
                while isinstance(batch[-1], Metric) and len(batch) < limit:
                    report = await self._reports.get()
                    if report is None:
                        self._reports.put_nowait(None)
                        break
                    batch.append(report)
        return batch

    async def send(self, command: Command) -> None:
        """Give the child a command; one that has gone already gets none."""
        await self._write(command.model_dump_json())

    async def finish(self, reason: FinishReason) -> None:
        """Ask the child, once, to checkpoint and end. What came first counts, as the child sees it."""
        if self.asked_to_finish is None:
            self.asked_to_finish = reason
            self._log.info("child_asked_to_finish", reason=reason)
            await self.send(Finish(reason=reason))

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self, patience: float = _EXIT_SECONDS) -> str | None:
        """Wait for the end, enforce it after ``patience`` seconds, and say what was wrong with it (None: nothing)."""
        enforced = False
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            enforced = True
            self._log.error("child_does_not_end", seconds=patience)
        finally:
            self.kill()
            await self._process.wait()
            await self._read_out()
        return "it did not end and was killed" if enforced else self._what_was_wrong()

    async def _read_out(self) -> None:
        """Read both pipes to their ends: the last words come last, and a pipe that is not read out stays open."""
        self._listening = False
        while not self._reports.empty():  # a reader may wait for room
            self._reports.get_nowait()
        _, stuck = await asyncio.wait(self._readers, timeout=_READ_OUT_SECONDS)
        for reader in stuck:  # a grandchild holds the pipe
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _what_was_wrong(self) -> str | None:
        code = self._process.returncode
        if code == 0:
            return None
        lines = "; ".join(self._last_lines)
        said = f"; its last words: {lines}" if lines else ""
        return f"{_end_of(code or 0)}{said}"

    async def _write(self, line: str) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(line.encode() + b"\n")
            await stdin.drain()

    async def _read_reports(self) -> None:
        try:
            while line := await self._line(self._process.stdout):
                report = self._parse(line)
                if report is not None and self._listening:
                    await self._reports.put(report)
        finally:
            with contextlib.suppress(asyncio.QueueFull):  # full: nobody listens any more
                self._reports.put_nowait(None)

    async def _read_errors(self) -> None:
        while line := await self._line(self._process.stderr):
            text = line.decode(errors="replace").strip()
            if text:
                self._last_lines.append(text[:300])
                self._log.info("child_says", line=text)

    async def _line(self, stream: asyncio.StreamReader | None) -> bytes:
        """Return the next line with its end; empty at the end of the stream. A line over the limit is passed over."""
        while stream is not None:
            try:
                return await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                return error.partial
            except asyncio.LimitOverrunError as error:
                self._log.warning("child_line_too_long", bytes=error.consumed)
                await stream.read(error.consumed)
        return b""

    def _parse(self, line: bytes) -> Report | None:
        try:
            return REPORT.validate_json(line)
        except ValidationError:
            if line.strip():
                self._log.warning("child_line_not_understood", line=line[:200].decode(errors="replace"))
            return None


def _end_of(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"
