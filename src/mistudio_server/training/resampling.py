"""Bringing dead features back to life where the autoencoder is worst."""

import torch
from torch import Tensor

from mistudio_server.training.sae.base import SparseAutoencoder

_ENCODER_NORM_RATIO = 0.2  # Bricken et al. 2023, "Neuron Resampling"


@torch.no_grad()
def resample_features(
    sae: SparseAutoencoder,
    optimizer: torch.optim.Optimizer,
    dead: Tensor,
    batches: list[Tensor],
    generator: torch.Generator,
) -> int:
    """Re-initialise the features of the mask ``dead`` [F]; return how many were.

    The scheme of Bricken et al. 2023 (appendix "Neuron Resampling"): pick an input for each dead feature with
    probability proportional to the square of its loss. Its direction from ``b_dec`` becomes the decoder row, and, at
    0.2 times the mean norm of the living encoder columns, the encoder column. The encoder bias becomes zero and Adam
    forgets these entries. ``batches`` are inputs of shape [B, d]; draws come from ``generator`` (CPU).
    """
    features = dead.nonzero().squeeze(1)
    inputs, losses = _candidates(sae, batches)
    if not len(features) or not bool(losses.sum() > 0):
        return 0
    weights = losses.double().cpu().square()
    chosen = torch.multinomial(
        weights, len(features), replacement=len(features) > int((weights > 0).sum()), generator=generator
    )
    directions = torch.nn.functional.normalize(inputs[chosen.to(inputs.device)] - sae.b_dec, dim=1)
    living = sae.W_enc[:, ~dead] if not bool(dead.all()) else sae.W_enc
    sae.W_dec[features] = directions
    sae.W_enc[:, features] = directions.T * (_ENCODER_NORM_RATIO * torch.linalg.vector_norm(living, dim=0).mean())
    sae.b_enc[features] = 0
    sae.reset_features(features)
    _forget(optimizer, sae, features)
    return len(features)


def _candidates(sae: SparseAutoencoder, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return all inputs [N, d] and the squared error of each [N]."""
    losses = [(batch - sae(batch)).square().sum(dim=1) for batch in batches]
    return torch.cat(batches), torch.cat(losses)


def _forget(optimizer: torch.optim.Optimizer, sae: SparseAutoencoder, features: Tensor) -> None:
    """Zero Adam's moments of these features; the feature axis is the last of all but ``W_dec``."""
    for name, parameter in sae.named_parameters():
        if name == "b_dec":
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            values = optimizer.state[parameter][moment]
            if name == "W_dec":
                values[features] = 0
            else:
                values[..., features] = 0
