"""A training from its job to its last report: resume, steps, metrics, checkpoints, an orderly end."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from mistudio_server.errors import InvalidInputError
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.channel import Channel
from mistudio_server.training.checkpoints import CheckpointStore, Saved, Snapshot
from mistudio_server.training.durable import FreeBytes, disk_free_bytes
from mistudio_server.training.failures import TrainingDivergedError
from mistudio_server.training.protocol import CheckpointSaved, Finished, Metric, Started, TrainingJob, Warned
from mistudio_server.training.saelens import saelens_config
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.trainer import Measurement, Trainer, choose_device, make_deterministic


def run_training(
    job: TrainingJob,
    channel: Channel,
    *,
    now: Callable[[], float],
    free_bytes: FreeBytes = disk_free_bytes,
) -> None:
    """Train until all steps are done or the channel asks to end; then checkpoint and report ``finished``.

    ``now`` is seconds since 1970. Raises ``StudioError``: for a dataset that cannot be used, a full disk, a run that
    diverges, a checkpoint of another autoencoder.
    """
    run = _Run(job, channel, now, free_bytes)
    try:
        run.prepare()
        run.steps()
        run.end()
    finally:
        run.close()


class _Run:
    def __init__(self, job: TrainingJob, channel: Channel, now: Callable[[], float], free_bytes: FreeBytes) -> None:
        self._job, self._channel, self._now = job, channel, now
        self._hyperparameters = job.hyperparameters
        self._checkpoints = CheckpointStore(
            Path(job.checkpoints_dir), kept=job.hyperparameters.checkpoints_kept, free_bytes=free_bytes
        )
        self._store = ActivationStore(Path(job.activations_dir))
        self._device = choose_device(job.hyperparameters.device)
        self._threads = job.torch_num_threads
        self._pending: list[Metric] = []
        self._saved_step = -1
        self._rate = _Rate(now)
        self._trainer: Trainer | None = None

    @property
    def trainer(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError("prepare() comes first")
        return self._trainer

    def prepare(self) -> None:
        """Resume the newest checkpoint that can be used, or start anew; tell the worker where the run stands."""
        loaded = self._checkpoints.load_newest(self._ahead)
        for reason in loaded.passed_over:
            self._channel.emit(Warned(code="corrupt_checkpoint", message=reason))
        for reason in loaded.ahead:
            self._channel.emit(Warned(code="checkpoint_ahead", message=reason))
        snapshot = loaded.snapshot
        if snapshot is not None:
            self._check_same_sae(snapshot)
            self._threads = self._threads or snapshot.meta["torch_num_threads"]
        self._threads = make_deterministic(self._device, self._threads)
        self._trainer = Trainer(self._store, self._hyperparameters, self._device)
        if snapshot is None:
            self.trainer.initialise()
        else:
            self._restore(snapshot)
        self._announce(loaded.saved)

    def steps(self) -> None:
        """Step, measure and checkpoint until done or asked to end."""
        every, interval = self._hyperparameters.log_interval, self._hyperparameters.checkpoint_interval
        last = self._hyperparameters.total_steps
        self._rate.restart(self.trainer.step)
        while not self.trainer.done and self._channel.finish_reason() is None:
            number = self.trainer.step + 1
            measurement = self.trainer.advance(measure=number % every == 0 or number == last)
            if measurement is not None:
                self._report(measurement)
            if number % interval == 0:
                self._save()

    def end(self) -> None:
        """Checkpoint unless this step has one, and say why the run ended."""
        if self._saved_step != self.trainer.step:
            self._save()
        reason = "completed" if self.trainer.done else self._channel.finish_reason() or "interrupted"
        self._channel.emit(Finished(reason=reason, step=self.trainer.step))

    def close(self) -> None:
        """Stop the reading thread."""
        if self._trainer is not None:
            self._trainer.close()

    def _announce(self, resumed: Saved | None) -> None:
        sae = self.trainer.sae
        self._channel.emit(
            Started(
                step=self.trainer.step,
                device=str(self._device),
                d_model=sae.d_model,
                dictionary_size=sae.dictionary_size,
            )
        )
        for metric in self._pending:
            self._channel.emit(metric)
        if resumed is not None:  # the worker may have died between this checkpoint and its row
            self._saved_step = resumed.step
            self._emit_saved(resumed)

    def _report(self, measurement: Measurement) -> None:
        step = self.trainer.step
        rate = self._rate.samples_per_second(step, self._hyperparameters.batch_size)
        values = {name: _finite(value) for name, value in asdict(measurement).items()}
        metric = Metric(step=step, timestamp=self._now(), samples_per_second=rate, **values)
        self._channel.emit(metric)
        if not math.isfinite(measurement.loss) or not math.isfinite(measurement.grad_norm):
            raise TrainingDivergedError(
                f"At step {step} the loss is {measurement.loss} and the gradient's norm {measurement.grad_norm}",
                hint="Resume from the last checkpoint's settings with a lower learning_rate, or add lr_warmup_steps.",
            )
        self._pending.append(metric)

    def _save(self) -> None:
        confirmed = self._channel.confirmed_step()
        self._pending = [metric for metric in self._pending if metric.step > confirmed]
        snapshot = self._snapshot()
        self._check_finite(snapshot)
        saved = self._checkpoints.save(snapshot)
        self._saved_step = saved.step
        self._emit_saved(saved)

    def _emit_saved(self, saved: Saved) -> None:
        self._channel.emit(
            CheckpointSaved(
                step=saved.step,
                path=str(saved.path),
                size_bytes=saved.size_bytes,
                sha256=saved.sha256,
                removed_steps=list(saved.removed_steps),
            )
        )

    def _snapshot(self) -> Snapshot:
        trainer = self.trainer
        return Snapshot(
            step=trainer.step,
            weights=_arrays(trainer.weights()),
            state=_arrays(trainer.state()),
            config=saelens_config(self._hyperparameters, self._store.d_model, training_id=self._job.training_id),
            meta={
                "training_id": self._job.training_id,
                "hyperparameters": self._hyperparameters.model_dump(mode="json"),
                "d_model": self._store.d_model,
                "dictionary_size": trainer.sae.dictionary_size,
                "scale": trainer.scale,
                "rows": self._store.rows,
                "torch_num_threads": self._threads,
                "torch": torch.__version__,
                "pending": [metric.model_dump(mode="json") for metric in self._pending],
            },
        )

    def _check_finite(self, snapshot: Snapshot) -> None:
        """A checkpoint with NaN in it could never be resumed, and would push out those that can."""
        for name, array in snapshot.weights.items():
            if not math.isfinite(float(array.sum(dtype="float64"))):
                raise TrainingDivergedError(
                    f"At step {snapshot.step} the parameter {name} is no longer finite",
                    hint="Start again with a lower learning_rate, or add lr_warmup_steps.",
                )

    def _ahead(self, snapshot: Snapshot) -> str | None:
        """Return why a checkpoint must not be resumed: metrics that it takes as recorded are not in the database."""
        recorded, taken = self._job.recorded_step, taken_as_recorded(snapshot)
        if recorded is None or taken <= recorded:
            return None
        return (
            f"The checkpoint of step {snapshot.step} takes metrics as recorded through step {taken}, and the database "
            f"has them through step {recorded}: it was restored from a backup, and those between would be missing"
        )

    def _check_same_sae(self, snapshot: Snapshot) -> None:
        had = (
            snapshot.meta["hyperparameters"]["architecture"],
            snapshot.meta["d_model"],
            snapshot.meta["dictionary_size"],
        )
        d_model = self._store.d_model
        wants = self._hyperparameters.architecture.value, d_model, self._hyperparameters.features_for(d_model)
        for name, old, new in zip(("architecture", "d_model", "dictionary_size"), had, wants, strict=True):
            if old != new:
                raise InvalidInputError(
                    f"The checkpoint of step {snapshot.step} has {name} {old}, and the training now has {new}",
                    hint="Start a new training for another autoencoder or another dataset's width.",
                )

    def _restore(self, snapshot: Snapshot) -> None:
        if snapshot.meta["rows"] != self._store.rows:
            message = (
                f"The dataset has {self._store.rows} rows and had {snapshot.meta['rows']} at the checkpoint of step "
                f"{snapshot.step}: the order of the rows is another from here on"
            )
            self._channel.emit(Warned(code="dataset_changed", message=message))
        self.trainer.restore(
            step=snapshot.step,
            scale=snapshot.meta["scale"],
            weights=_tensors(snapshot.weights),
            state=_tensors(snapshot.state),
        )
        self._pending = [Metric.model_validate(metric) for metric in snapshot.meta["pending"]]


def taken_as_recorded(snapshot: Snapshot) -> int:
    """Return the step of the last metric that a checkpoint does not carry because the database had it; 0 for none."""
    hyperparameters = snapshot.meta["hyperparameters"]
    pending = [metric["step"] for metric in snapshot.meta["pending"]]
    last: int = min(pending) - 1 if pending else snapshot.step
    if last == hyperparameters["total_steps"]:
        return last  # the last step is measured whatever the interval
    return last - last % int(hyperparameters["log_interval"])


class _Rate:
    """Samples per second since the last time it was asked."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.restart(0)

    def restart(self, step: int) -> None:
        self._step, self._time = step, self._now()

    def samples_per_second(self, step: int, batch_size: int) -> float | None:
        seconds = self._now() - self._time
        samples = (step - self._step) * batch_size
        self.restart(step)
        return samples / seconds if seconds > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def _tensors(arrays: dict[str, Array]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
