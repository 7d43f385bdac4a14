"""A real beat process: it starts with or without Redis, survives a garbled schedule file, and leaves at once."""

import asyncio
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from mistudio_server.settings import Settings
from tests.support.runs import WorkerProcess
from tests.support.servers import free_port
from tests.support.sockets import until

pytestmark = pytest.mark.integration

BEAT = "tests.support.run_beat"


def garbled(path: Path) -> bool:
    return path.exists() and b"garbage" in path.read_bytes()


async def test_keeps_its_schedule_where_it_is_told_and_is_small(worker_settings: Settings, folder: Path) -> None:
    with WorkerProcess(worker_settings, folder, BEAT) as beat:
        await until(lambda: any((folder / "beat").glob("schedule*")), 60)
        await asyncio.sleep(0.5)
        status = Path(f"/proc/{beat.process.pid}/status").read_text()
        began = time.monotonic()
        assert await beat.end() == 0
        assert time.monotonic() - began < 10
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    assert resident < 70, f"{resident:.0f} MB"


async def test_leaves_in_order_while_redis_is_away(worker_settings: Settings, folder: Path) -> None:
    url = SecretStr(f"redis://127.0.0.1:{free_port()}/0")
    with WorkerProcess(worker_settings.model_copy(update={"redis_url": url}), folder, BEAT) as beat:
        await asyncio.sleep(3)
        assert beat.process.poll() is None
        assert await beat.end() == 0


async def test_a_garbled_schedule_file_is_replaced(worker_settings: Settings, folder: Path) -> None:
    (folder / "beat").mkdir()
    (folder / "beat/schedule").write_bytes(b"\x00garbage" * 100)
    with WorkerProcess(worker_settings, folder, BEAT) as beat:
        await until(lambda: any((folder / "beat").glob("schedule*")) and not garbled(folder / "beat/schedule"), 60)
        await asyncio.sleep(1)  # until it has written its own
        assert beat.process.poll() is None
        assert await beat.end() == 0
