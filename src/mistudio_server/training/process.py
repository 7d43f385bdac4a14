"""One training or extraction as a process of its own, commanded over pipes: see ``protocol``."""

import ctypes
import errno
import logging
import os
import signal
import sys
import time

from pydantic import ValidationError

from mistudio_server.errors import InsufficientStorageError, InvalidInputError, StudioError, TrainingUnavailableError
from mistudio_server.training.channel import PipeChannel
from mistudio_server.training.failures import OutOfMemoryError
from mistudio_server.training.protocol import ExtractionJob, Failed, Job

_PR_SET_PDEATHSIG = 1
log = logging.getLogger(__name__)


def main() -> int:
    """Run the job on standard input; return the exit code: 1 after ``failed``, else 0."""
    parent = os.getppid()
    output = _take_standard_output()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    channel = PipeChannel(input_fd=0, output_fd=output)
    signal.signal(signal.SIGTERM, lambda *_: channel.finish("interrupted"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker tells us what it means
    _die_with_parent(parent)
    try:
        _run(channel)
    except Exception as error:
        log.exception("The job failed")
        channel.emit(failure_of(error))
        return 1
    return 0


def _take_standard_output() -> int:
    """Return a private copy of standard output, and point the public one at standard error.

    A library that prints would otherwise garble the protocol.
    """
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill us when the thread that started us ends, and end if the parent is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit(1)


def _run(channel: PipeChannel) -> None:
    job = _read_job(channel)
    channel.listen()
    try:
        _start(job, channel)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] in {"torch", "transformers", "tokenizers"}:
            raise TrainingUnavailableError(
                f"{error.name} is not installed on this worker",
                hint="Install the extra: pip install 'mistudio[train]', then restart the worker.",
            ) from error
        raise


def _read_job(channel: PipeChannel) -> Job:
    try:
        return channel.read_job()
    except ValidationError as error:
        raise InvalidInputError(
            f"The first line on standard input is not a job: {error.error_count()} problem(s), first {_first(error)}",
            hint="Worker and training process must be of one release: restart the worker.",
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'line'}: {first['msg']}"


def _start(job: Job, channel: PipeChannel) -> None:
    """Import what needs torch as late as this."""
    if isinstance(job, ExtractionJob):
        from mistudio_server.training.extraction import run_extraction  # noqa: PLC0415

        run_extraction(job, channel, clock=time.monotonic)
    else:
        from mistudio_server.training.run import run_training  # noqa: PLC0415

        run_training(job, channel, now=time.time)


def failure_of(error: Exception) -> Failed:
    """Return the last report for an exception: expected ones keep their code, the rest are ``internal_error``."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        error = InsufficientStorageError(
            f"The disk is full: {error}", hint="Free some space (old checkpoints and datasets), then resume."
        )
    elif isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        error = OutOfMemoryError(
            f"The run needs more memory than there is: {str(error).partition('. ')[0]}",
            hint="Lower batch_size, or dictionary_size / expansion_factor; or free the GPU of other programs.",
        )
    if isinstance(error, StudioError):
        return Failed(code=error.code, message=error.detail, hint=error.hint)
    return Failed(
        code="internal_error",
        message=f"{type(error).__name__}: {error}",
        hint="The worker's log has the traceback of this run.",
    )


def _is_torch_out_of_memory(error: Exception) -> bool:
    """CUDA has its own class; the CPU allocator raises a plain RuntimeError."""
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.startswith("torch"):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())
