"""A whole studio of a test's own: deployed as an operator deploys it, in a temporary folder, on free ports."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import save_file

PORT_BLOCK = 64
OPS_TIMEOUT = 120.0


def free_port_block() -> int:
    """Return the first of ``PORT_BLOCK`` consecutive ports of 127.0.0.1 that are all free now."""
    for _ in range(200):
        base = random.SystemRandom().randrange(20_000, 32_000)
        try:
            for port in range(base, base + PORT_BLOCK):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free block of ports on 127.0.0.1")


@dataclass
class Studio:
    """An environment ``local`` in ``state_dir``. ``ops`` runs the CLI as a subprocess."""

    state_dir: Path
    port: int = field(default_factory=free_port_block)
    variables: dict[str, str] = field(default_factory=dict)

    def ops(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``mistudio-ops`` and return what it printed; ``check`` makes a failure ours."""
        done = subprocess.run(
            [sys.executable, "-m", "mistudio_ops", *arguments],
            env=self._environment,
            cwd=self.state_dir.parent,
            capture_output=True,
            text=True,
            timeout=OPS_TIMEOUT,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"mistudio-ops {' '.join(arguments)} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def begin(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start ``mistudio-ops`` and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "mistudio_ops", *arguments],
            env=self._environment,
            cwd=self.state_dir.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MISTUDIO_STATE_DIR": str(self.state_dir),
            "MISTUDIO_PORT": str(self.port),
            # Other tests want the cores as well, and more threads would only wait for each other.
            "MISTUDIO_SERVER_TORCH_NUM_THREADS": "1",
            **self.variables,
        }

    def json(self, *arguments: str) -> dict[str, Any]:
        """Run with ``--json`` and return its ``data``."""
        document: dict[str, Any] = json.loads(self.ops(*arguments, "--json").stdout)
        assert document["ok"], document
        data: dict[str, Any] = document["data"]
        return data

    @property
    def url(self) -> str:
        """Public address."""
        return f"http://127.0.0.1:{self.port}"

    def units(self) -> dict[str, dict[str, Any]]:
        """Return what ``status`` says of each unit, by name."""
        return {unit["name"]: unit for unit in self.json("status")["units"]}

    def pid(self, unit: str) -> int:
        """Return the process id of a running unit."""
        pid = self.units()[unit]["pid"]
        assert pid, f"{unit} does not run"
        return int(pid)

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """Open a client of the API, through the proxy; a connection that breaks is tried again."""
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=f"{self.url}/api/v1", timeout=20, transport=transport) as client:
            yield client

    @property
    def data_dir(self) -> Path:
        """DATA_DIR."""
        return self.state_dir / "data"

    def purge(self) -> None:
        """Stop everything and remove the folder."""
        self.ops("down", "--purge", "--confirm", "local", check=False)
        shutil.rmtree(self.state_dir.parent, ignore_errors=True)


@contextmanager
def deployed_studio(**variables: str) -> Iterator[Studio]:
    """Deploy a studio, and purge it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mst-"))  # short: a socket's path has at most 107 bytes
    folder.chmod(0o755)
    studio = Studio(folder / "s", variables=variables)
    try:
        studio.ops("deploy", "local")
        yield studio
    finally:
        studio.purge()


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until ``condition`` holds and return how long it took; a raised transport error counts as not yet."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            if condition():
                return time.monotonic() - started
        except (httpx.HTTPError, AssertionError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def write_activations(folder: Path, *, rows: int = 4096, width: int = 32, shards: int = 2, seed: int = 0) -> None:
    """Write shards of a sparse mixture of random directions, as a small real dataset would look."""
    generator = np.random.default_rng(seed)
    dictionary = generator.standard_normal((4 * width, width)).astype(np.float32)
    folder.mkdir(parents=True)
    for number in range(shards):
        codes = generator.random((rows // shards, 4 * width)) * (generator.random((rows // shards, 4 * width)) < 0.03)
        save_file({"activations": (codes @ dictionary).astype(np.float32)}, folder / f"shard-{number:05d}.safetensors")
