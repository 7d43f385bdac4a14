"""A Redis-compatible store that belongs to one test, so that the test can kill it and start it again."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from mistudio_ops.drivers.account import service_account
from mistudio_ops.drivers.embedded import find_programs, reachable
from tests.support.servers import free_port


class OwnStore:
    """Start, kill and restart a store on a port of its own."""

    def __init__(self, root: Path) -> None:
        self._account = service_account()
        self._root = root
        self._program = reachable(find_programs().store, self._account, root / "runtime").path
        self._data = root / "data"
        self._data.mkdir(mode=0o700)
        self._account.own(self._data)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [str(self._program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._data)]
        self._process = subprocess.Popen(
            [*argv, "--save", ""],
            cwd=self._data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._account.popen(),
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
            except redis.exceptions.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def own_store() -> Iterator[OwnStore]:
    """Yield a running store; it and its files are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="mistudio-store-"))
    root.chmod(0o755)
    store = OwnStore(root)
    store.start()
    try:
        yield store
    finally:
        store.kill()
        shutil.rmtree(root, ignore_errors=True)
