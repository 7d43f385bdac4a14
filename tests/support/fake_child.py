"""A training process without torch: it speaks the protocol, counts steps, and misbehaves as told.

Run as ``python -m tests.support.fake_child FOLDER``. ``FOLDER/plan.json`` says how: ``steps_per_second``, ``die_at``
(SIGKILL to itself at that step, each time), ``die_once_at``, ``fail_at``, ``garbage``, ``deaf`` (ignores commands),
``silent_exit``.
``FOLDER/starts`` gets a line ``pid resumed_step`` per start. Losses are a function of the step, so that an interrupted
run can be compared with a whole one.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mistudio_server.training.protocol import (
    COMMAND,
    JOB,
    CheckpointSaved,
    Confirm,
    Extracted,
    ExtractionJob,
    Failed,
    Finished,
    Metric,
    Progress,
    Started,
    TrainingJob,
)


class FakeChild:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        self.reason: str | None = None
        self.confirmed = -1

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.finish("interrupted"))
        job = JOB.validate_json(sys.stdin.readline())
        if not self.plan.get("deaf"):
            threading.Thread(target=self.listen, daemon=True).start()
        return self.train(job) if isinstance(job, TrainingJob) else self.extract(job)

    def listen(self) -> None:
        for line in sys.stdin:
            command = COMMAND.validate_json(line)
            if isinstance(command, Confirm):
                self.confirmed = max(self.confirmed, command.step)
            else:
                self.finish(command.reason)
        self.finish("interrupted")

    def finish(self, reason: str) -> None:
        self.reason = self.reason or reason

    def emit(self, report: Any) -> None:
        sys.stdout.write(report.model_dump_json() + "\n")
        sys.stdout.flush()

    def train(self, job: TrainingJob) -> int:
        root = Path(job.checkpoints_dir)
        step, pending = newest(root)
        with (self.folder / "starts").open("a") as starts:
            starts.write(f"{os.getpid()} {step}\n")
        self.emit(Started(step=step, device="cpu", d_model=4, dictionary_size=8))
        for old in pending:
            self.emit(metric(old))
        sent = list(pending)
        pause = 1 / self.plan.get("steps_per_second", 200)
        while step < job.hyperparameters.total_steps and self.reason is None:
            step += 1
            time.sleep(pause)
            self.misbehave(step)
            if step % job.hyperparameters.log_interval == 0:
                self.emit(metric(step))
                sent.append(step)
            if step % job.hyperparameters.checkpoint_interval == 0:
                sent = [one for one in sent if one > self.confirmed]
                self.checkpoint(root, step, sent)
        self.checkpoint(root, step, [one for one in sent if one > self.confirmed])
        self.emit(Finished(reason=self.reason or "completed", step=step))  # type: ignore[arg-type]
        return 0

    def misbehave(self, step: int) -> None:
        if step == self.plan.get("die_at"):
            print("the last words of a doomed process", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.plan.get("die_once_at") and (self.folder / "starts").read_text().count("\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.plan.get("silent_exit"):
            raise SystemExit(0)
        if step == self.plan.get("fail_at"):
            self.emit(Failed(code="invalid_dataset", message="NaN in shard 3", hint="look at it"))
            raise SystemExit(1)
        if step == self.plan.get("garbage"):
            sys.stdout.write("Downloading...\n\n{}\n" + "x" * (3 << 20) + "\n")
            sys.stdout.flush()

    def checkpoint(self, root: Path, step: int, pending: list[int]) -> None:
        folder = root / f"step-{step:010d}"
        folder.mkdir(parents=True, exist_ok=True)
        weights = f"weights {step}".encode()
        (folder / "sae_weights.safetensors").write_bytes(weights)
        (folder / "state.json").write_text(json.dumps({"step": step, "pending": pending}))
        removed = sorted(root.glob("step-*"))[:-3]
        for old in removed:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        self.emit(
            CheckpointSaved(
                step=step,
                path=str(folder),
                size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
                sha256=hashlib.sha256(weights).hexdigest(),
                removed_steps=[int(old.name[5:]) for old in removed],
            )
        )

    def extract(self, job: ExtractionJob) -> int:
        output = Path(job.output_dir)
        temporary = output.parent / f".tmp-{output.name}-{os.getpid()}"
        temporary.mkdir(parents=True)
        with (self.folder / "starts").open("a") as starts:
            starts.write(f"{os.getpid()} 0\n")
        total = self.plan.get("rows", 50)
        for done in range(1, total + 1):
            time.sleep(1 / self.plan.get("steps_per_second", 200))
            self.misbehave(done)
            (temporary / "shard-00000.safetensors").write_text(str(done))
            self.emit(Progress(done=done, total=total))
            if self.reason is not None:
                self.emit(Finished(reason="interrupted", step=0))
                return 0
        temporary.rename(output)
        self.emit(Extracted(rows=total, d_model=4, size_bytes=100, shards=1))
        return 0


def newest(root: Path) -> tuple[int, list[int]]:
    states = sorted(root.glob("step-*/state.json"))
    if not states:
        return 0, []
    state = json.loads(states[-1].read_text())
    return state["step"], state["pending"]


def loss_at(step: int) -> float:
    return 1.0 / step


def metric(step: int) -> Metric:
    return Metric(
        step=step, timestamp=time.time(), loss=loss_at(step), loss_reconstructed=0.5, l0_sparsity=3.0, l1_sparsity=None,
        fvu=0.1, dead_neurons=0, learning_rate=1e-3, grad_norm=1.0, gpu_memory_used_mb=None, samples_per_second=10.0,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(FakeChild(Path(sys.argv[1])).run())
