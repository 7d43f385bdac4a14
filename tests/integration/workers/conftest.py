"""A supervisor in the test's own loop, with fake children, and workers in processes of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from mistudio_server.settings import Settings
from mistudio_server.workers.supervisor import Supervisor
from mistudio_server.workers.timing import Timing
from tests.support.runs import plan

QUICK = Timing(
    poll_seconds=0.05, heartbeat_seconds=0.1, heartbeat_timeout_seconds=0.5, batch_seconds=0.02, idle_seconds=0.1,
    finish_seconds=3.0, shutdown_seconds=2.0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where fake children find their plan and leave their traces."""
    path = tmp_path / "fake"
    path.mkdir()
    plan(path)
    return path


@pytest.fixture
def worker_settings(settings: Settings) -> Settings:
    """Settings of worker-1."""
    return settings.model_copy(
        update={
            "mistudio_instance": "worker-1",
            "training_heartbeat_seconds": 0.2,
            "training_heartbeat_timeout_seconds": 1.0,
        }
    )


Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


@pytest.fixture
def supervise(worker_settings: Settings, folder: Path) -> Supervise:
    """Return what runs a supervisor while a block lasts, and stops it in order."""

    @asynccontextmanager
    async def run(
        settings: Settings = worker_settings,
        timing: Timing = QUICK,
        kinds: tuple[str, ...] = ("training", "extraction"),
    ) -> AsyncIterator[Supervisor]:
        argv = (sys.executable, "-m", "tests.support.fake_child", str(folder))
        supervisor = Supervisor(settings, kinds, child_argv=argv, timing=timing)
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            supervisor.stop()
            await asyncio.wait_for(task, 10)

    return run
