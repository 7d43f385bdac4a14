"""The JumpReLU sparse autoencoder: a learnt threshold for each feature and a penalty on L0 itself."""

from typing import Any

import torch
from torch import Tensor, nn

from mistudio_server.training.sae.base import Pass, SparseAutoencoder, reconstruction_loss


class JumpReluSae(SparseAutoencoder):
    """Rajamanoharan et al. 2024, "Jumping Ahead" (arXiv:2407.14435).

    ``f_i = pre_i * H(pre_i - theta_i)``, ``loss = mean (x - x_hat)^2 + l0_coefficient * mean over samples of
    sum_i H(pre_i - theta_i)`` with H the step function and ``theta`` [F] > 0.

    The derivatives with respect to theta are the paper's straight-through estimators (section 3), with the rectangle
    kernel K(u) = [|u| < 1/2] of width ``bandwidth``:
    ``d f / d theta = -(theta / bandwidth) K((pre - theta) / bandwidth)``,
    ``d H / d theta = -(1 / bandwidth) K((pre - theta) / bandwidth)``.

    Pre-activations pass a ReLU first, as in the paper's appendix J. Theta is learnt itself and clamped at zero, not
    as its logarithm: Adam moves a parameter by about the learning rate a step, which moves a small exp(.) hardly.
    """

    threshold: nn.Parameter

    def __init__(
        self,
        d_model: int,
        dictionary_size: int,
        *,
        l0_coefficient: float,
        bandwidth: float,
        initial_threshold: float,
    ) -> None:
        super().__init__(d_model, dictionary_size)
        self._l0_coefficient, self._bandwidth, self._initial_threshold = l0_coefficient, bandwidth, initial_threshold
        self.threshold = nn.Parameter(torch.full((dictionary_size,), initial_threshold))

    def encoder_scale(self) -> float:
        """Start with a reconstruction of about the input's size: half of the features fire on a random input."""
        return min(1.0, 2 * self.d_model / self.dictionary_size)

    def activate(self, pre: Tensor) -> Tensor:
        return _JumpRelu.call(torch.relu(pre), self.threshold.clamp_min(0), self._bandwidth)

    def losses(self, x: Tensor, *, sparsity_weight: float, dead: Tensor) -> Pass:  # noqa: ARG002
        pre = torch.relu(self.pre_activations(x))
        threshold = self.threshold.clamp_min(0)
        features = _JumpRelu.call(pre, threshold, self._bandwidth)
        output = self.decode(features)
        reconstruction = reconstruction_loss(x, output)
        l0 = _Step.call(pre, threshold, self._bandwidth).sum(dim=1).mean()
        return Pass(reconstruction + self._l0_coefficient * sparsity_weight * l0, reconstruction, features, output)

    @torch.no_grad()
    def reset_features(self, features: Tensor) -> None:
        """Put the thresholds of these features back to their initial value."""
        self.threshold[features] = self._initial_threshold


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Return K((pre - threshold) / bandwidth), shape [B, F]."""
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype)


class _JumpRelu(torch.autograd.Function):
    @staticmethod
    def call(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        result: Tensor = _JumpRelu.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
        return result

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = grad_outputs
        pre, threshold = ctx.saved_tensors
        near = (_near(pre, threshold, ctx.bandwidth) * gradient).sum(dim=0)
        return gradient * (pre > threshold), near * (-threshold / ctx.bandwidth), None


class _Step(torch.autograd.Function):
    @staticmethod
    def call(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        result: Tensor = _Step.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
        return result

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = grad_outputs
        pre, threshold = ctx.saved_tensors
        near = (_near(pre, threshold, ctx.bandwidth) * gradient).sum(dim=0)
        return None, near / -ctx.bandwidth, None
