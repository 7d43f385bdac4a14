"""Each architecture finds the dictionary that the data was made of: 128 directions in 64 dimensions, about 4 at a time.

Measured on these data (seed 5): mean maximal cosine similarity topk 0.96, standard 0.98, jumprelu 0.99.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.trainer import Measurement, Trainer, make_deterministic
from tests.unit.training.synthetic import noise, small_job, write_dictionary_data, write_rows

pytestmark = pytest.mark.train

SETTINGS = {
    "topk": {"k": 4, "dead_feature_window": 200},
    "standard": {"l1_coefficient": 0.02},
    "jumprelu": {"l0_coefficient": 0.01, "jumprelu_initial_threshold": 0.5, "jumprelu_bandwidth": 0.5},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    folder = tmp_path_factory.mktemp("known") / "activations"
    return folder, write_dictionary_data(folder)


def train(folder: Path, **settings: object) -> tuple[Trainer, Measurement]:
    values = {"dictionary_size": 128, "batch_size": 256, "total_steps": 800, "learning_rate": 6e-3, **settings}
    hyperparameters = small_job(folder.parent, **values).hyperparameters
    make_deterministic(torch.device("cpu"), 1)
    trainer = Trainer(ActivationStore(folder), hyperparameters, torch.device("cpu"))
    trainer.initialise()
    while not trainer.done:
        measurement = trainer.advance(measure=trainer.step + 1 == hyperparameters.total_steps)
    trainer.close()
    assert measurement is not None
    return trainer, measurement


def mean_max_cosine(truth: Array, learnt: Array) -> float:
    return float((truth @ learnt.T).max(axis=1).mean())


@pytest.mark.parametrize("architecture", list(SETTINGS))
def test_dictionary_is_recovered(data: tuple[Path, Array], architecture: str) -> None:
    folder, truth = data
    trainer, last = train(folder, architecture=architecture, lr_decay_steps=300, **SETTINGS[architecture])
    learnt = trainer.weights()["W_dec"].numpy()
    random = np.random.default_rng(1).normal(size=learnt.shape)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert mean_max_cosine(truth, learnt) >= 0.9
    assert mean_max_cosine(truth, random) < 0.5
    assert last.fvu < 0.25
    assert last.l0_sparsity < 25
    assert last.dead_neurons <= 8


def test_resampling_revives_dead_features(tmp_path: Path) -> None:
    """A heavy L1 penalty kills most features early on; resampling brings them back to where the error is."""
    write_dictionary_data(tmp_path / "activations", d_model=16, features=32, active=2, rows=4_000)
    common = {
        "architecture": "standard", "l1_coefficient": 0.3, "learning_rate": 1e-2, "dictionary_size": 96,
        "total_steps": 300, "dead_feature_window": 40, "batch_size": 128,
    }  # fmt: skip
    _, without = train(tmp_path / "activations", **common)
    _, resampled = train(tmp_path / "activations", **common, resample_dead_every=50)
    assert without.dead_neurons > 50
    assert resampled.dead_neurons < without.dead_neurons / 2
    assert resampled.fvu < without.fvu


def test_inputs_are_scaled_to_the_square_root_of_their_width(tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise() * 1000)
    trainer, _ = train(tmp_path / "activations", total_steps=1, batch_size=64)
    norms = np.linalg.norm(noise() * 1000, axis=1) * trainer.scale
    assert norms.mean() == pytest.approx(4.0, rel=1e-3)


def test_activations_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise() * 0)
    with pytest.raises(InvalidDatasetError, match="is zero"):
        train(tmp_path / "activations", total_steps=1)


def test_scaling_can_be_turned_off(tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise() * 1000)
    trainer, _ = train(tmp_path / "activations", total_steps=1, normalize_activations=False)
    assert trainer.scale == 1.0
