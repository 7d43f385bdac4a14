"""One training: its state, one optimizer step, and the state as tensors for a checkpoint."""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training import schedule
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.resampling import resample_features
from mistudio_server.training.sae.base import Pass
from mistudio_server.training.sae.build import build_sae

_SAMPLE_ROWS = 65_536  # rows that the input scale and the centre are estimated from
_RESAMPLE_ROWS = 8_192
_TRAINING_STREAM, _SAMPLE_STREAM, _RESAMPLE_STREAM = 0, 1, 2
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one step's batch showed, in units of the normalised inputs. See ``protocol.Metric``."""

    loss: float
    loss_reconstructed: float
    l0_sparsity: float
    l1_sparsity: float
    fvu: float
    dead_neurons: int
    learning_rate: float
    grad_norm: float
    gpu_memory_used_mb: float | None


def choose_device(wanted: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means on this machine."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def make_deterministic(device: torch.device, threads: int | None) -> int:
    """Make a run on the CPU repeatable bit for bit; return the number of threads, on which its sums depend.

    CUDA is left at its default algorithms: full float32 (no TF32), and repeatable to rounding.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu":
        torch.use_deterministic_algorithms(mode=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # saves a write
    return torch.get_num_threads()


class Trainer:
    """The autoencoder, its optimizer and what else changes from step to step. ``step`` is the number of steps done.

    Inputs are multiplied by ``scale``, so that their mean norm is sqrt(d_model) (Anthropic's "Circuits Updates", April
    2024), which makes coefficients and rates mean the same for every model. ``weights`` takes it out again.
    """

    def __init__(self, store: ActivationStore, hyperparameters: Hyperparameters, device: torch.device) -> None:
        self.hyperparameters, self.device = hyperparameters, device
        self.step = 0
        self.scale = 1.0
        self.sae = build_sae(hyperparameters, store.d_model).to(device)
        self._inputs = _Inputs(store, hyperparameters, device)
        self._generator = torch.Generator().manual_seed(hyperparameters.seed)
        self._idle_steps = torch.zeros(self.sae.dictionary_size, dtype=torch.int64, device=device)
        self._optimizer = torch.optim.Adam(
            self.sae.parameters(),
            lr=hyperparameters.learning_rate,
            betas=(hyperparameters.adam_beta1, hyperparameters.adam_beta2),
            fused=True,
        )

    def initialise(self) -> None:
        """Estimate the inputs' scale and centre, and draw the first weights. For a run without a checkpoint."""
        sample = self._inputs.sample(_SAMPLE_STREAM, 0, _SAMPLE_ROWS)
        if self.hyperparameters.normalize_activations:
            self.scale = self._scale_of(sample)
        self.sae.initialise(self._generator, sample.mean(dim=0) * self.scale)

    def _scale_of(self, sample: Tensor) -> float:
        mean_norm = float(torch.linalg.vector_norm(sample.double(), dim=1).mean())
        if mean_norm == 0:
            raise InvalidDatasetError(
                f"Every activation sampled from {self._inputs.store.folder} is zero",
                hint="Extract the activations again, or choose another layer.",
            )
        return math.sqrt(self.sae.d_model) / mean_norm

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.hyperparameters.total_steps

    def advance(self, *, measure: bool) -> Measurement | None:
        """Do one optimizer step; return what its batch showed if ``measure``."""
        batch = self._inputs.batch(self.step).mul_(self.scale)
        self.step += 1
        rate = self._set_learning_rate()
        weight = schedule.sparsity_weight(self.hyperparameters, self.step)
        self._optimizer.zero_grad(set_to_none=False)
        result = self.sae.losses(batch, sparsity_weight=weight, dead=self._dead())
        result.loss.backward()  # type: ignore[no-untyped-call]
        self.sae.project_decoder_gradient()
        norm = torch.nn.utils.clip_grad_norm_(self.sae.parameters(), self.hyperparameters.gradient_clip_norm)
        self._optimizer.step()
        self.sae.renormalise_decoder()
        self._count_idle(result.features)
        measurement = self._measure(batch, result, rate, norm) if measure else None
        self._resample_if_due()
        return measurement

    def close(self) -> None:
        """Stop reading ahead."""
        self._inputs.close()

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters of the same autoencoder for activations that are not scaled.

        With ``y = scale * x`` and features divided by ``scale``, ``W_enc`` and ``W_dec`` stay as they are and every
        bias and threshold is divided by ``scale``: ReLU, TopK and JumpReLU commute with a positive factor.
        """
        parameters = {name: value.detach() for name, value in self.sae.named_parameters()}
        return {name: v if name.startswith("W_") else v / self.scale for name, v in parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Return what ``restore`` needs besides ``weights``: biases as trained, Adam's moments, counters, generator."""
        tensors = {
            f"parameter.{name}": value.detach()
            for name, value in self.sae.named_parameters()
            if not name.startswith("W_")
        }
        for name, parameter in self.sae.named_parameters():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors | {"idle_steps": self._idle_steps, "generator": self._generator.get_state()}

    @torch.no_grad()
    def restore(self, *, step: int, scale: float, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint: the next step gives the same numbers as if there had been no interruption.

        Raises ``KeyError`` or ``RuntimeError`` when a tensor is missing or has another shape.
        """
        self.step, self.scale = step, scale
        for name, parameter in self.sae.named_parameters():
            parameter.copy_(weights[name] if name.startswith("W_") else state[f"parameter.{name}"])
            if f"adam.step.{name}" in state:
                self._optimizer.state[parameter] = {
                    key: state[f"adam.{key}.{name}"].to(self.device, copy=True)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self._idle_steps.copy_(state["idle_steps"])
        self._generator.set_state(state["generator"])

    def _set_learning_rate(self) -> float:
        rate = schedule.learning_rate(self.hyperparameters, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _dead(self) -> Tensor:
        return self._idle_steps >= self.hyperparameters.dead_feature_window

    @torch.no_grad()
    def _count_idle(self, features: Tensor) -> None:
        self._idle_steps.add_(1).masked_fill_((features.detach() > 0).any(dim=0), 0)

    @torch.no_grad()
    def _measure(self, batch: Tensor, result: Pass, rate: float, norm: Tensor) -> Measurement:
        error = (batch - result.output).square().sum()
        variance = (batch - batch.mean(dim=0)).square().sum()
        features = result.features.detach()
        return Measurement(
            loss=result.loss.item(),
            loss_reconstructed=result.reconstruction.item(),
            l0_sparsity=(features > 0).sum(dim=1).double().mean().item(),
            l1_sparsity=features.sum(dim=1).mean().item(),
            fvu=(error / variance).item(),
            dead_neurons=int(self._dead().sum()),
            learning_rate=rate,
            grad_norm=norm.item(),
            gpu_memory_used_mb=torch.cuda.memory_reserved(self.device) / _MIB if self.device.type == "cuda" else None,
        )

    def _resample_if_due(self) -> None:
        """Resample, but not so late that the new features would have less than one interval to learn."""
        every = self.hyperparameters.resample_dead_every
        if not every or self.step % every or self.step + every > self.hyperparameters.total_steps:
            return
        dead = self._dead()
        if not bool(dead.any()):
            return
        size = self.hyperparameters.batch_size
        rows = self._inputs.sample(_RESAMPLE_STREAM, self.step, _RESAMPLE_ROWS).mul_(self.scale)
        resample_features(self.sae, self._optimizer, dead, list(torch.split(rows, size)), self._generator)
        self._idle_steps[dead] = 0


class _Inputs:
    """Batches on the device.

    Two buffers of torch's own memory take turns: rows land there aligned alike in every run (sums in a BLAS may
    depend on alignment), and pinned where the copy goes to a GPU. While a GPU computes, the next batch is read in a
    thread; on the CPU that thread would only take the interpreter's lock from the steps (a profile showed a third
    of the time in waiting for it).
    """

    def __init__(self, store: ActivationStore, hyperparameters: Hyperparameters, device: torch.device) -> None:
        self.store, self._hyperparameters, self._device = store, hyperparameters, device
        on_gpu = device.type == "cuda"
        shape = (hyperparameters.batch_size, store.d_model)
        self._buffers = [torch.empty(shape, pin_memory=on_gpu) for _ in range(2)]
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead") if on_gpu else None
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def batch(self, step: int) -> Tensor:
        """Return the batch after ``step`` steps, shape [batch_size, d]; it may be overwritten two calls later."""
        if self._reader is None:
            return self._read(step)
        host = self._ahead[1].result() if self._ahead and self._ahead[0] == step else self._read(step)
        self._ahead = (step + 1, self._reader.submit(self._read, step + 1))
        return host.to(self._device)

    def sample(self, stream: int, step: int, rows: int) -> Tensor:
        """Return rows chosen by ``stream`` and ``step``, at most ``rows`` and at most all, on the device."""
        wanted = min(rows, self.store.rows)
        if self._ahead is not None:
            self._ahead[1].exception()  # the store is not for two threads at once
        read = self.store.batch(seed=self._hyperparameters.seed, step=step, batch_size=wanted, stream=stream)
        return torch.from_numpy(read).to(self._device)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> Tensor:
        buffer = self._buffers[step % 2]
        size = self._hyperparameters.batch_size
        self.store.batch(seed=self._hyperparameters.seed, step=step, batch_size=size, out=buffer.numpy())
        return buffer
