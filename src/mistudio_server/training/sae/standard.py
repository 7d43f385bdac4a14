"""The standard sparse autoencoder: ReLU features and an L1 penalty."""

import torch
from torch import Tensor

from mistudio_server.training.sae.base import Pass, SparseAutoencoder, reconstruction_loss


class StandardSae(SparseAutoencoder):
    """Bricken et al. 2023, "Towards Monosemanticity: Decomposing Language Models With Dictionary Learning".

    ``f = ReLU((x - b_dec) W_enc + b_enc)``;
    ``loss = mean (x - x_hat)^2 + l1_coefficient * mean over samples of sum_i f_i ||w_i||``.

    The decoder's rows are held at norm 1, as in that paper, so that ``||w_i|| = 1`` and the decoder-norm weighted
    penalty of Anthropic's April 2024 update ("Circuits Updates: Training Sparse Autoencoders") is the same thing.
    """

    def __init__(self, d_model: int, dictionary_size: int, *, l1_coefficient: float) -> None:
        super().__init__(d_model, dictionary_size)
        self._l1_coefficient = l1_coefficient

    def encoder_scale(self) -> float:
        """Start with a reconstruction of about the input's size: half of the features fire on a random input."""
        return min(1.0, 2 * self.d_model / self.dictionary_size)

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre)

    def losses(self, x: Tensor, *, sparsity_weight: float, dead: Tensor) -> Pass:  # noqa: ARG002
        features = self.encode(x)
        output = self.decode(features)
        reconstruction = reconstruction_loss(x, output)
        l1 = features.sum(dim=1).mean()
        return Pass(reconstruction + self._l1_coefficient * sparsity_weight * l1, reconstruction, features, output)

    def reset_features(self, features: Tensor) -> None:
        """Nothing: there is no parameter besides those of every architecture."""
