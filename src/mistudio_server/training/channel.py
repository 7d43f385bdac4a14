"""The job's side of the conversation with its worker: reports out, commands in."""

import os
import threading
from typing import Literal, Protocol

from pydantic import ValidationError

from mistudio_server.training.protocol import COMMAND, JOB, Confirm, Job, Report, Warned

FinishReason = Literal["paused", "stopped", "interrupted"]
_CHUNK = 65_536


class Channel(Protocol):
    """What the loops need of it; tests pass one that lives in memory."""

    def emit(self, report: Report) -> None:
        """Send a report."""
        ...

    def finish_reason(self) -> FinishReason | None:
        """Return why the run is to end, once it is to."""
        ...

    def confirmed_step(self) -> int:
        """Return the step up to which metrics are in the database; -1 before the first confirmation."""
        ...


class PipeChannel:
    """Reports as JSON lines to one file descriptor, commands from another, read in a thread.

    The end of the input means that the worker gave the run up, and so does an output that nobody reads: both are
    ``interrupted``. The first reason wins.
    """

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input_fd, self._output_fd = input_fd, output_fd
        self._buffer = b""
        self._reason: FinishReason | None = None
        self._confirmed = -1
        self._writing = threading.Lock()

    def read_job(self) -> Job:
        """Return the job on the first line. Raises ``pydantic.ValidationError``, also when the input ends before it."""
        return JOB.validate_json(self._read_line() or b"")

    def listen(self) -> None:
        """Read commands in a thread from now on."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def finish(self, reason: FinishReason) -> None:
        """Ask the loop to end. Safe in a signal handler."""
        self._reason = self._reason or reason

    def finish_reason(self) -> FinishReason | None:
        return self._reason

    def confirmed_step(self) -> int:
        return self._confirmed

    def emit(self, report: Report) -> None:
        """Send a report; when nobody reads any more, ask the loop to end."""
        data = memoryview(report.model_dump_json().encode() + b"\n")
        try:
            with self._writing:
                while data:
                    data = data[os.write(self._output_fd, data) :]
        except BrokenPipeError:
            self.finish("interrupted")

    def _listen(self) -> None:
        while (line := self._read_line()) is not None:
            self._obey(line)
        self.finish("interrupted")

    def _obey(self, line: bytes) -> None:
        try:
            command = COMMAND.validate_json(line)
        except ValidationError:
            text = line[:200].decode(errors="replace")
            self.emit(Warned(code="unknown_command", message=f"This line is no command and was passed over: {text!r}"))
            return
        if isinstance(command, Confirm):
            self._confirmed = max(self._confirmed, command.step)
        else:
            self.finish(command.reason)

    def _read_line(self) -> bytes | None:
        """Return the next line that is not empty, or None at the end of the input. Unbuffered, so that no lock is
        held by a daemon thread when the interpreter ends."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.strip():
                    return line
                continue
            chunk = os.read(self._input_fd, _CHUNK)
            if not chunk:
                return None
            self._buffer += chunk
