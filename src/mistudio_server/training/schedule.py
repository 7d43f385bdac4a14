"""How the learning rate and the sparsity weight go over the steps of a run. Pure functions of the step."""

from mistudio_server.training.hyperparameters import Hyperparameters


def learning_rate(hyperparameters: Hyperparameters, step: int) -> float:
    """Return the rate of optimizer step ``step`` (the first is 1).

    It rises linearly over ``lr_warmup_steps`` to ``learning_rate``, stays, and falls linearly over the last
    ``lr_decay_steps``, of which the last step still has a rate above zero.
    """
    warmup = min(1.0, step / hyperparameters.lr_warmup_steps) if hyperparameters.lr_warmup_steps else 1.0
    left = hyperparameters.total_steps - step + 1
    decay = min(1.0, left / hyperparameters.lr_decay_steps) if hyperparameters.lr_decay_steps else 1.0
    return hyperparameters.learning_rate * warmup * decay


def sparsity_weight(hyperparameters: Hyperparameters, step: int) -> float:
    """Return the factor in (0, 1] of the sparsity term at ``step``: linear over ``sparsity_warmup_steps``."""
    if not hyperparameters.sparsity_warmup_steps:
        return 1.0
    return min(1.0, step / hyperparameters.sparsity_warmup_steps)
