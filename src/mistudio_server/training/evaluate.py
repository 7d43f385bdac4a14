"""How well an autoencoder rebuilds activations that it was not trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.sae.base import SparseAutoencoder
from mistudio_server.training.sae.load import load_sae

_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``fvu``: fraction of variance unexplained, ``sum ||x - x_hat||^2 / sum ||x - mean||^2`` over all rows.

    ``fvu_mean_baseline`` is that of answering the rows' mean every time: 1, but for rounding. ``l0`` is the mean number
    of features that fire, ``cosine`` the mean cosine of x and x_hat, ``dead_features`` those that never fire.
    """

    rows: int
    fvu: float
    fvu_mean_baseline: float
    l0: float
    cosine: float
    dead_features: int


def evaluate(checkpoint: Path, activations: Path, *, untrained_seed: int | None = None) -> Evaluation:
    """Measure the checkpoint in the folder ``checkpoint`` on the shards in ``activations``, block by block.

    With ``untrained_seed``, measure an autoencoder of the same kind and size with the weights that a training begins
    with: random directions, centred on the mean of these activations. Raises ``InvalidInputError`` for a folder that
    is no checkpoint, ``InvalidDatasetError`` for activations of another width or that cannot be used.
    """
    store = ActivationStore(activations)
    sae = load_sae(checkpoint)
    if sae.d_model != store.d_model:
        raise InvalidDatasetError(
            f"{activations} has width {store.d_model}, and the autoencoder in {checkpoint} has {sae.d_model}",
            hint="Evaluate on activations of the layer and model that it was trained on.",
        )
    mean = _mean(store)
    if untrained_seed is not None:
        sae.initialise(torch.Generator().manual_seed(untrained_seed), torch.from_numpy(mean))
        sae.reset_features(torch.arange(sae.dictionary_size))
    return measure(sae, store, mean)


@torch.inference_mode()
def measure(sae: SparseAutoencoder, store: ActivationStore, mean: np.ndarray) -> Evaluation:
    """Run all rows of ``store``, whose mean is ``mean`` [d], through ``sae``."""
    error = variance = baseline = fired = cosine = 0.0
    alive = torch.zeros(sae.dictionary_size, dtype=torch.bool)
    centre = torch.from_numpy(mean).double()
    guess = torch.from_numpy(mean).float()
    for block in store.in_order(_BLOCK_ROWS):
        x = torch.from_numpy(block)
        features = sae.encode(x)
        output = sae.decode(features)
        error += float((x - output).double().square().sum())
        variance += float((x.double() - centre).square().sum())
        baseline += float((x - guess).double().square().sum())
        fired += float((features > 0).sum())
        cosine += float(torch.nn.functional.cosine_similarity(x, output, dim=1).double().sum())
        alive |= (features > 0).any(dim=0)
    return Evaluation(
        rows=store.rows,
        fvu=error / variance if variance else float("nan"),
        fvu_mean_baseline=baseline / variance if variance else float("nan"),
        l0=fired / store.rows,
        cosine=cosine / store.rows,
        dead_features=int((~alive).sum()),
    )


def _mean(store: ActivationStore) -> np.ndarray:
    total = sum(block.sum(axis=0, dtype=np.float64) for block in store.in_order(_BLOCK_ROWS))
    return np.asarray(total / store.rows)
