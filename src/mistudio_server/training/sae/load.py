"""An autoencoder from a folder in the SAELens layout."""

import json
from pathlib import Path
from typing import Any

import torch

from mistudio_server.errors import InvalidInputError
from mistudio_server.training.checkpoints import CONFIG_FILE, WEIGHTS_FILE
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.sae.base import SparseAutoencoder
from mistudio_server.training.sae.build import build_sae
from mistudio_server.training.safetensors_file import read_tensors


def load_sae(folder: Path) -> SparseAutoencoder:
    """Return the autoencoder of ``cfg.json`` and ``sae_weights.safetensors`` in ``folder``.

    Raises ``InvalidInputError`` when a file is missing or damaged, or they do not fit each other.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        sae = build_from_config(config)
        weights = {name: torch.from_numpy(array) for name, array in read_tensors(folder / WEIGHTS_FILE).items()}
        sae.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InvalidInputError(
            f"{folder} is not an autoencoder in the SAELens layout: {error}",
            hint=f"Give a checkpoint's folder, with {CONFIG_FILE} and {WEIGHTS_FILE}.",
        ) from error
    return sae


def build_from_config(config: dict[str, Any]) -> SparseAutoencoder:
    """Return an autoencoder of the kind and size of a ``cfg.json``, with parameters still zero."""
    chosen = {"architecture": config["architecture"], "dictionary_size": config["d_sae"]}
    if "k" in config:
        chosen["k"] = config["k"]
    return build_sae(Hyperparameters.model_validate(chosen), config["d_in"])
