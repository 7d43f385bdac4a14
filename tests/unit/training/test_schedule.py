"""Learning rate and sparsity weight at the corners of their schedules."""

import pytest

from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.schedule import learning_rate, sparsity_weight


@pytest.mark.parametrize(
    ("step", "rate"),
    [(1, 0.1), (5, 0.5), (10, 1.0), (11, 1.0), (80, 1.0), (81, 1.0), (91, 0.5), (99, 0.1), (100, 0.05)],
)
def test_learning_rate_rises_stays_and_falls(step: int, rate: float) -> None:
    hyperparameters = Hyperparameters(total_steps=100, learning_rate=1.0, lr_warmup_steps=10, lr_decay_steps=20)
    assert learning_rate(hyperparameters, step) == pytest.approx(rate)


@pytest.mark.parametrize("step", [1, 50, 100])
def test_learning_rate_is_constant_by_default(step: int) -> None:
    assert learning_rate(Hyperparameters(total_steps=100, learning_rate=0.2), step) == 0.2


@pytest.mark.parametrize(("step", "weight"), [(1, 0.25), (2, 0.5), (4, 1.0), (9, 1.0)])
def test_sparsity_weight_grows_to_one(step: int, weight: float) -> None:
    assert sparsity_weight(Hyperparameters(sparsity_warmup_steps=4), step) == weight


def test_sparsity_weight_is_one_without_warmup() -> None:
    assert sparsity_weight(Hyperparameters(), 1) == 1.0
