"""The SAELens layout: ``cfg.json`` beside ``sae_weights.safetensors`` (``W_enc`` [d_in, d_sae], ``b_enc``, ``W_dec``
[d_sae, d_in], ``b_dec``, and ``threshold`` for JumpReLU), as ``SAE.load_from_disk`` of SAELens 6 reads it."""

from typing import Any

from mistudio_server import __version__
from mistudio_server.statuses import SaeArchitecture
from mistudio_server.training.hyperparameters import Hyperparameters

#: The release of SAELens whose fields are written.
_SAELENS_VERSION = "6.0.0"


def saelens_config(hyperparameters: Hyperparameters, d_model: int, *, training_id: str) -> dict[str, Any]:
    """Return ``cfg.json``. The weights act on activations as extracted, so ``normalize_activations`` is none."""
    config: dict[str, Any] = {
        "architecture": hyperparameters.architecture.value,
        "d_in": d_model,
        "d_sae": hyperparameters.features_for(d_model),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _SAELENS_VERSION,
            "sae_lens_training_version": f"mistudio {__version__}",
            "training_id": training_id,
        },
    }
    if hyperparameters.architecture is SaeArchitecture.TOPK:
        k = min(hyperparameters.k, config["d_sae"])
        config |= {"k": k, "rescale_acts_by_decoder_norm": False}
    return config
