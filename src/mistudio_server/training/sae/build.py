"""From hyperparameters to an autoencoder."""

from mistudio_server.statuses import SaeArchitecture
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.sae.base import SparseAutoencoder
from mistudio_server.training.sae.jumprelu import JumpReluSae
from mistudio_server.training.sae.standard import StandardSae
from mistudio_server.training.sae.topk import TopKSae


def build_sae(hyperparameters: Hyperparameters, d_model: int) -> SparseAutoencoder:
    """Return an autoencoder whose parameters are still zero, on the CPU."""
    size = hyperparameters.features_for(d_model)
    match hyperparameters.architecture:
        case SaeArchitecture.STANDARD:
            return StandardSae(d_model, size, l1_coefficient=hyperparameters.l1_coefficient)
        case SaeArchitecture.TOPK:
            return TopKSae(
                d_model,
                size,
                k=hyperparameters.k,
                aux_k=hyperparameters.aux_k,
                aux_k_coefficient=hyperparameters.aux_k_coefficient,
            )
        case SaeArchitecture.JUMPRELU:
            return JumpReluSae(
                d_model,
                size,
                l0_coefficient=hyperparameters.l0_coefficient,
                bandwidth=hyperparameters.jumprelu_bandwidth,
                initial_threshold=hyperparameters.jumprelu_initial_threshold,
            )
