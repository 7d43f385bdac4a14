"""The TopK sparse autoencoder: exactly k features, and dead ones kept alive by an auxiliary loss."""

import torch
from torch import Tensor

from mistudio_server.training.sae.base import Pass, SparseAutoencoder, reconstruction_loss


class TopKSae(SparseAutoencoder):
    """Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093).

    ``f = ReLU(TopK((x - b_dec) W_enc + b_enc))``; ``loss = mean (x - x_hat)^2 + aux_k_coefficient * AuxK``.

    AuxK (appendix A.2) is the error of the residual ``e = x - x_hat`` (a constant) rebuilt by the ``aux_k`` strongest
    dead features: ``mean (e - z W_dec)^2`` with ``z = ReLU(TopK_aux(pre of the dead))``.
    """

    def __init__(
        self, d_model: int, dictionary_size: int, *, k: int, aux_k: int | None = None, aux_k_coefficient: float
    ) -> None:
        super().__init__(d_model, dictionary_size)
        self.k = min(k, dictionary_size)
        self._aux_k = aux_k or max(1, d_model // 2)
        self._aux_k_coefficient = aux_k_coefficient

    def activate(self, pre: Tensor) -> Tensor:
        return _keep_largest(pre, self.k)

    def losses(self, x: Tensor, *, sparsity_weight: float, dead: Tensor) -> Pass:  # noqa: ARG002
        pre = self.pre_activations(x)
        features = self.activate(pre)
        output = self.decode(features)
        reconstruction = reconstruction_loss(x, output)
        loss = reconstruction
        if self._aux_k_coefficient > 0 and bool(dead.any()):
            loss = loss + self._aux_k_coefficient * self._auxiliary_loss(pre, (x - output).detach(), dead)
        return Pass(loss, reconstruction, features, output)

    def _auxiliary_loss(self, pre: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        indices = dead.nonzero().squeeze(1)
        activations = _keep_largest(pre[:, indices], min(self._aux_k, len(indices)))
        return reconstruction_loss(residual, activations @ self.W_dec[indices])

    def reset_features(self, features: Tensor) -> None:
        """Nothing: there is no parameter besides those of every architecture."""


def _keep_largest(pre: Tensor, k: int) -> Tensor:
    """Zero all but the ``k`` largest of each row, and what is negative among those."""
    values, indices = torch.topk(pre, k, dim=1, sorted=False)
    return torch.zeros_like(pre).scatter(1, indices, torch.relu(values))
