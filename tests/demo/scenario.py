"""What a researcher does: register a model and text, extract, train, watch on another backend, download, evaluate."""

import asyncio
import io
import tarfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import socketio

from tests.demo.corpus import corpus

LAYER = 3
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
ENDED = {"completed", "failed", "cancelled"}
UPLOAD_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How big a demonstration is. ``train_bytes`` of text; the rest are hyperparameters."""

    train_bytes: int = 1_100_000
    total_steps: int = 600
    batch_size: int = 1024
    dictionary_size: int = 1536
    k: int = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. FVU is measured on activations of text that the training never saw."""

    training_id: str
    events: list[dict[str, Any]]
    fvu: float
    fvu_untrained: float
    fvu_mean_baseline: float
    l0: float
    checkpoint_files: list[str]


Watcher = Callable[[str, float, float], None]


class Researcher:
    """Drives the studio at ``base_url`` and listens on the backend at ``events_url``."""

    def __init__(self, base_url: str, events_url: str, watch: Watcher) -> None:
        self.http = httpx.AsyncClient(base_url=f"{base_url}/api/v1", timeout=UPLOAD_TIMEOUT)
        self.events_url = events_url
        self.watch = watch
        self.events: list[dict[str, Any]] = []
        self.suffix = f"{time.time():.0f}"

    async def run(self, model_dir: Path, evaluate: Callable[[Path, str], Awaitable[dict[str, float]]], size: Size,
                  workdir: Path) -> Outcome:  # fmt: skip
        """Go the whole way. ``evaluate(checkpoint_dir, activations_path)`` measures a downloaded checkpoint."""
        text = corpus(size.train_bytes)
        model = await self._upload_model(model_dir)
        train_text = await self._upload_text("text", text.train)
        held_out_text = await self._upload_text("held-out", text.held_out)
        activations = await self._extract(model, train_text, "train activations")
        held_out = await self._extract(model, held_out_text, "held-out activations")
        training = await self._train(activations, size)
        checkpoint = await self._download(training["id"], training["step"], workdir)
        measured = await evaluate(checkpoint, held_out["path"])
        return Outcome(
            training_id=training["id"],
            events=self.events,
            fvu=measured["fvu"],
            fvu_untrained=measured["fvu_untrained"],
            fvu_mean_baseline=measured["fvu_mean_baseline"],
            l0=measured["l0"],
            checkpoint_files=sorted(path.name for path in checkpoint.iterdir()),
        )

    async def close(self) -> None:
        """Close connections."""
        await self.http.aclose()

    async def _post(self, path: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.http.post(path, **arguments)
        if answer.is_error:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
        body: dict[str, Any] = answer.json()
        return body

    async def _upload_model(self, folder: Path) -> dict[str, Any]:
        files = [("file", (name, (folder / name).read_bytes())) for name in MODEL_FILES if (folder / name).exists()]
        return await self._post("/models/upload", data={"name": f"all-MiniLM-L6-v2 {self.suffix}"}, files=files)

    async def _upload_text(self, name: str, text: str) -> dict[str, Any]:
        file = ("file", (f"{name}.txt", text.encode()))
        return await self._post("/datasets/upload", data={"name": f"{name} {self.suffix}"}, files=[file])

    async def _extract(self, model: dict[str, Any], text: dict[str, Any], name: str) -> dict[str, Any]:
        job = await self._post(
            "/activations",
            json={"model_id": model["id"], "dataset_id": text["id"], "layer": LAYER, "name": f"{name} {self.suffix}"},
        )
        return await self._wait(f"/datasets/{job['id']}", name, {"ready", "failed"}, lambda row: row["progress"] or 0.0)

    async def _train(self, activations: dict[str, Any], size: Size) -> dict[str, Any]:
        training = await self._post(
            "/trainings",
            json={
                "name": f"TopK on all-MiniLM-L6-v2 layer {LAYER}",
                "dataset_id": activations["id"],
                "hyperparameters": {
                    "architecture": "topk",
                    "k": size.k,
                    "dictionary_size": size.dictionary_size,
                    "total_steps": size.total_steps,
                    "batch_size": size.batch_size,
                    "learning_rate": 1e-3,
                    "lr_decay_steps": size.total_steps // 5,
                    "dead_feature_window": 200,
                    "log_interval": 10,
                    "checkpoint_interval": max(1, size.total_steps // 4),
                },
            },
        )
        client = await self._listen(training["id"])
        try:
            return await self._wait(
                f"/trainings/{training['id']}", "training", ENDED, lambda row: row["step"] / row["total_steps"]
            )
        finally:
            await asyncio.sleep(0.5)  # the last event may still be on its way
            await client.disconnect()

    async def _listen(self, training_id: str) -> socketio.AsyncClient:
        client = socketio.AsyncClient()
        client.on("training:progress", self.events.append)
        await client.connect(self.events_url, transports=["websocket"])
        answer = await client.call("subscribe", {"channel": f"trainings/{training_id}/progress"}, timeout=10)
        if not answer["ok"]:
            raise RuntimeError(f"subscribe: {answer}")
        return client

    async def _wait(
        self, path: str, name: str, final: set[str], progress: Callable[[dict[str, Any]], float]
    ) -> dict[str, Any]:
        while True:
            answer = await self.http.get(path)
            answer.raise_for_status()
            row: dict[str, Any] = answer.json()
            self.watch(name, progress(row), self.events[-1]["fvu"] if self.events else float("nan"))
            if row["status"] in final:
                if row["status"] in {"failed", "cancelled"}:
                    raise RuntimeError(f"{name} {row['status']}: {row.get('error')}")
                return row
            await asyncio.sleep(0.3)

    async def _download(self, training_id: str, step: int, workdir: Path) -> Path:
        answer = await self.http.get(f"/trainings/{training_id}/checkpoints/{step}/download")
        answer.raise_for_status()
        target = workdir / "checkpoint"
        target.mkdir()
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                if content is not None:
                    (target / Path(member.name).name).write_bytes(content.read())
        return target
