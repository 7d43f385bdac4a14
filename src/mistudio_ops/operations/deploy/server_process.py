"""Running a command of the server (``migrate``, ``check``) with a unit's own interpreter, account and variables."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mistudio_ops.domain.units import Unit
from mistudio_ops.engines.host import Host


@contextmanager
def run_server(host: Host, unit: Unit, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start ``mistudio-server ARGUMENTS``. It is ended with the block if it still runs."""
    process = subprocess.Popen(
        [*unit.argv[:-1], *arguments], env=dict(unit.environment), cwd=unit.directory, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **host.python.popen(),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        except ValueError:  # its pipes were read and closed already
            process.wait()
