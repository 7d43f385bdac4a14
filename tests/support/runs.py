"""Queued trainings and extractions, and what became of them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import text

from mistudio_server.db.engine import Database
from mistudio_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def plan(folder: Path, **values: Any) -> None:
    """Tell the fake children how to behave."""
    (folder / "plan.json").write_text(json.dumps(values))


def starts(folder: Path) -> list[tuple[int, int]]:
    """Return process id and resumed step of each start of a fake child."""
    path = folder / "starts"
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return [(int(pid), int(step)) for pid, step in lines]


async def queue_training(database: Database, settings: Settings, run_id: str = "tr_1", **hyperparameters: Any) -> str:
    """Insert a dataset (once) and a queued training over it."""
    (settings.data_dir / "activations/dst_1").mkdir(parents=True, exist_ok=True)
    values = {"total_steps": 60, "log_interval": 1, "checkpoint_interval": 20, **hyperparameters}
    async with database.write() as session:
        await session.execute(
            text(
                "INSERT INTO datasets (id, name, kind, path, status) VALUES"
                " ('dst_1', 'd', 'activations', 'activations/dst_1', 'ready') ON CONFLICT DO NOTHING"
            )
        )
        await session.execute(
            text(
                "INSERT INTO trainings"
                " (id, name, dataset_id, status, hyperparameters, total_steps, queued_at, request_id)"
                " VALUES (:id, :id, 'dst_1', 'queued', CAST(:hyperparameters AS jsonb), :total, now(), 'req_' || :id)"
            ),
            {"id": run_id, "hyperparameters": json.dumps(values), "total": values["total_steps"]},
        )
    return run_id


async def queue_extraction(database: Database, settings: Settings, run_id: str = "dst_x") -> str:
    """Insert a model and a text (once) and a queued extraction."""
    (settings.data_dir / "models/mdl_1").mkdir(parents=True, exist_ok=True)
    (settings.data_dir / "text.txt").write_text("text")
    async with database.write() as session:
        for statement in (
            "INSERT INTO models (id, name, path, status) VALUES ('mdl_1', 'm', 'models/mdl_1', 'ready')",
            "INSERT INTO datasets (id, name, kind, path, status) VALUES ('dst_t', 't', 'text', 'text.txt', 'ready')",
        ):
            await session.execute(text(f"{statement} ON CONFLICT DO NOTHING"))
        await session.execute(
            text(
                "INSERT INTO datasets"
                " (id, name, kind, path, status, model_id, text_dataset_id, extraction, request_id) VALUES"
                " (:id, :id, 'activations', 'activations/' || :id, 'queued', 'mdl_1', 'dst_t', '{\"layer\": 1}',"
                " 'req_x')"
            ),
            {"id": run_id},
        )
    return run_id


async def row(database: Database, run_id: str, table: str = "trainings") -> dict[str, Any]:
    """Return a row of ``trainings`` or ``datasets``."""
    async with database.read() as session:
        found = (await session.execute(text(f"SELECT * FROM {table} WHERE id = :id"), {"id": run_id})).mappings().one()
        return dict(found)


async def set_status(database: Database, run_id: str, status: str, table: str = "trainings") -> None:
    """Change a status, as the API does."""
    async with database.write() as session:
        await session.execute(
            text(f"UPDATE {table} SET status = :status WHERE id = :id"), {"id": run_id, "status": status}
        )


async def wait_for(
    database: Database,
    run_id: str,
    condition: Callable[[dict[str, Any]], bool],
    table: str = "trainings",
    seconds: float = 20,
) -> dict[str, Any]:
    """Wait until the row is as ``condition`` wants it, and return it."""
    found: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await row(database, run_id, table)
                if condition(found):
                    return found
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"{run_id} is {found}") from None


async def wait_status(database: Database, run_id: str, status: str, table: str = "trainings") -> dict[str, Any]:
    """Wait until the run is in ``status``."""
    return await wait_for(database, run_id, lambda found: found["status"] == status, table)


async def metrics(database: Database, run_id: str = "tr_1") -> list[tuple[int, float]]:
    """Return step and loss of what was recorded, in order."""
    async with database.read() as session:
        query = text("SELECT step, loss FROM training_metrics WHERE training_id = :id ORDER BY step")
        return [(step, loss) for step, loss in (await session.execute(query, {"id": run_id})).all()]


async def checkpoint_steps(database: Database, run_id: str = "tr_1") -> list[int]:
    """Return the steps of the recorded checkpoints."""
    async with database.read() as session:
        query = text("SELECT step FROM checkpoints WHERE training_id = :id ORDER BY step")
        return list((await session.execute(query, {"id": run_id})).scalars())


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables that give a process these settings."""
    values = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "REDIS_WS_URL": settings.redis_ws_url.get_secret_value(),
        "REDIS_PREFIX": settings.redis_prefix,
        "DATA_DIR": str(settings.data_dir),
        "LOG_LEVEL": settings.log_level,
        "MISTUDIO_INSTANCE": settings.mistudio_instance,
        "TRAINING_SLOTS": str(settings.training_slots),
        "TRAINING_HEARTBEAT_SECONDS": str(settings.training_heartbeat_seconds),
        "TRAINING_HEARTBEAT_TIMEOUT_SECONDS": str(settings.training_heartbeat_timeout_seconds),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
    }
    if settings.websocket_emit_url:
        values["WEBSOCKET_EMIT_URL"] = settings.websocket_emit_url
    if settings.internal_token:
        values["INTERNAL_TOKEN"] = settings.internal_token.get_secret_value()
    return {**os.environ, **values}


class WorkerProcess:
    """A real worker in a process of its own."""

    def __init__(self, settings: Settings, folder: Path, module: str = "tests.support.run_worker") -> None:
        self.log = folder / "worker.log"
        argv = [sys.executable, "-W", "default", "-m", module, *([str(folder)] if module.startswith("tests") else [])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=environment(settings), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    async def end(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signum)
        return await asyncio.to_thread(self.process.wait, 35)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines that are JSON."""
        found = []
        for line in self.log.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
