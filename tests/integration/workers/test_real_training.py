"""One real training, end to end: trained, killed on the way, and the same bit for bit in the end."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mistudio_server.db.engine import Database
from mistudio_server.settings import Settings
from tests.support.runs import WorkerProcess, checkpoint_steps, metrics, queue_training, row, wait_for, wait_status

pytestmark = [pytest.mark.integration, pytest.mark.train]

SHAPE = {
    "total_steps": 120, "log_interval": 5, "checkpoint_interval": 30, "batch_size": 64, "dictionary_size": 32, "k": 4,
    "device": "cpu", "seed": 5,
}  # fmt: skip


@asynccontextmanager
async def worker(settings: Settings, folder: Path) -> AsyncIterator[WorkerProcess]:
    with WorkerProcess(settings, folder, "tests.support.run_real_worker") as process:
        yield process


async def test_a_real_training_survives_sigkill_of_its_worker_and_of_its_process(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    data = worker_settings.data_dir / "activations/dst_1"
    data.mkdir(parents=True)
    values = np.random.default_rng(0).normal(size=(4096, 16)).astype(np.float32)
    save_file({"activations": values}, data / "shard-00000.safetensors")
    await queue_training(database, worker_settings, "tr_whole", **SHAPE)
    async with worker(worker_settings, folder):
        whole = await wait_for(
            database, "tr_whole", lambda found: found["status"] in {"completed", "failed"}, seconds=60
        )
        assert whole["status"] == "completed", whole["error"]
    await queue_training(database, worker_settings, "tr_cut", **SHAPE)
    async with worker(worker_settings, folder) as first:
        await wait_for(database, "tr_cut", lambda found: found["step"] >= 5)
        await first.end(signal.SIGKILL)
    async with worker(worker_settings, folder):
        done = await wait_status(database, "tr_cut", "completed")
    assert await metrics(database, "tr_cut") == await metrics(database, "tr_whole")
    assert [step for step, _ in await metrics(database, "tr_cut")] == list(range(5, 121, 5))
    assert await checkpoint_steps(database, "tr_cut") == [60, 90, 120]
    assert done["last_metric"]["fvu"] is not None
    weights = [
        (worker_settings.data_dir / f"checkpoints/{name}/step-0000000120/sae_weights.safetensors").read_bytes()
        for name in ("tr_whole", "tr_cut")
    ]
    assert weights[0] == weights[1]
    assert (await row(database, "tr_cut"))["step"] == 120
