"""What the architectures share: parameters, the unit-norm decoder, the terms of a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SMALLEST_NORM = 1e-8


@dataclass(frozen=True, slots=True)
class Pass:
    """One batch through an autoencoder. B samples, d = d_model, F features.

    ``loss`` is what is minimised (scalar), ``reconstruction`` its first term, ``features`` [B, F] the activations and
    ``output`` [B, d] the reconstruction.
    """

    loss: Tensor
    reconstruction: Tensor
    features: Tensor
    output: Tensor


class SparseAutoencoder(nn.Module, ABC):
    """x [B, d] -> f(x) [B, F], sparse and >= 0 -> x_hat = f W_dec + b_dec [B, d].

    ``W_enc`` [d, F], ``b_enc`` [F], ``W_dec`` [F, d] (each row a feature's direction, of norm 1), ``b_dec`` [d].
    The pre-activation of all is ``(x - b_dec) W_enc + b_enc`` (Bricken et al. 2023, "Towards Monosemanticity"), and
    the reconstruction loss ``mean over B and d of (x - x_hat)^2``, so that with inputs of mean norm sqrt(d) an
    autoencoder that outputs zero has a loss near 1 whatever d is.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, d_model: int, dictionary_size: int) -> None:
        super().__init__()
        self.d_model, self.dictionary_size = d_model, dictionary_size
        self.W_enc = nn.Parameter(torch.zeros(d_model, dictionary_size))
        self.b_enc = nn.Parameter(torch.zeros(dictionary_size))
        self.W_dec = nn.Parameter(torch.zeros(dictionary_size, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, centre: Tensor) -> None:
        """Draw unit decoder rows, tie the encoder to their transpose, put ``b_dec`` at ``centre`` [d]."""
        rows = torch.randn(self.W_dec.shape, generator=generator)
        self.W_dec.copy_(rows)
        self.renormalise_decoder()
        self.W_enc.copy_(self.W_dec.T * self.encoder_scale())
        self.b_dec.copy_(centre)

    def encoder_scale(self) -> float:
        """Return the factor between the transposed decoder and the encoder at initialisation."""
        return 1.0

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return ``(x - b_dec) W_enc + b_enc``, shape [B, F].

        ``b_dec W_enc`` is taken alone: as part of ``x - b_dec`` its gradient would cost a product of the size of
        the encoder's, one of six.
        """
        return torch.addmm(self.b_enc - self.b_dec @ self.W_enc, x, self.W_enc)

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Return the feature activations of pre-activations [B, F]."""

    @abstractmethod
    def losses(self, x: Tensor, *, sparsity_weight: float, dead: Tensor) -> Pass:
        """Run a batch and price it. ``sparsity_weight`` in [0, 1] scales the sparsity term; ``dead`` [F] is a mask."""

    @abstractmethod
    def reset_features(self, features: Tensor) -> None:
        """Give what is particular to the architecture its initial value for the features with these indices."""

    def encode(self, x: Tensor) -> Tensor:
        """Return f(x), shape [B, F]."""
        return self.activate(self.pre_activations(x))

    def decode(self, features: Tensor) -> Tensor:
        """Return ``f W_dec + b_dec``, shape [B, d]."""
        return torch.addmm(self.b_dec, features, self.W_dec)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of ``x``."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove the part of the decoder's gradient along each row, which only changes the norm.

        ``g <- g - (g . w) w`` for each unit row w (Bricken et al. 2023): otherwise Adam's moments are spent on a
        change that ``renormalise_decoder`` undoes.
        """
        gradient = self.W_dec.grad
        if gradient is not None:
            along = torch.linalg.vecdot(gradient, self.W_dec, dim=1)
            gradient.addcmul_(self.W_dec, along.unsqueeze(1), value=-1)

    @torch.no_grad()
    def renormalise_decoder(self) -> None:
        """Scale each decoder row to norm 1."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_dec.div_(norms.clamp_min_(_SMALLEST_NORM))


def reconstruction_loss(x: Tensor, output: Tensor) -> Tensor:
    """Return the squared error averaged over samples and dimensions, a scalar."""
    return nn.functional.mse_loss(output, x)
