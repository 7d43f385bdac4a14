"""The exported layout, and what a checkpoint explains of activations that it was not trained on."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mistudio_server.errors import InvalidDatasetError, InvalidInputError
from mistudio_server.training.evaluate import evaluate
from mistudio_server.training.run import run_training
from tests.unit.training.synthetic import MemoryChannel, noise, small_job, write_dictionary_data, write_rows

pytestmark = pytest.mark.train

ARCHITECTURES = {
    "topk": {"k": 2},
    "standard": {"l1_coefficient": 0.02},
    "jumprelu": {"l0_coefficient": 0.01, "jumprelu_initial_threshold": 0.5, "jumprelu_bandwidth": 0.5},
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and held-out activations of the same dictionary."""
    folder = tmp_path_factory.mktemp("trained")
    shape = {"d_model": 16, "features": 32, "active": 2}
    write_dictionary_data(folder / "activations", rows=8_000, **shape)
    everything = np.concatenate(
        [safetensors.numpy.load_file(p)["activations"] for p in sorted((folder / "activations").iterdir())]
    )
    write_rows(folder / "held-out", everything[6_000:])
    for path in (folder / "activations").iterdir():
        path.unlink()
    write_rows(folder / "activations", everything[:6_000])
    job = small_job(
        folder, architecture=request.param, dictionary_size=32, total_steps=400, batch_size=256, learning_rate=5e-3,
        checkpoint_interval=1000, dead_feature_window=100, **ARCHITECTURES[request.param],
    )  # fmt: skip
    run_training(job, MemoryChannel(), now=time.time)
    return folder / "checkpoints" / "step-0000000400", folder / "held-out"


def test_trained_beats_untrained_and_the_mean(trained: tuple[Path, Path]) -> None:
    checkpoint, held_out = trained
    measured = evaluate(checkpoint, held_out)
    untrained = evaluate(checkpoint, held_out, untrained_seed=0)
    assert measured.rows == 2_000
    assert measured.fvu_mean_baseline == pytest.approx(1.0, abs=1e-6)
    assert measured.fvu < 0.4
    assert measured.fvu < 0.6 * untrained.fvu
    assert measured.cosine > untrained.cosine
    assert measured.dead_features <= 4


def test_numbers_are_those_of_the_formulas_on_the_exported_tensors(trained: tuple[Path, Path]) -> None:
    """A second implementation, in numpy, of what SAELens does with these files."""
    checkpoint, held_out = trained
    config = json.loads((checkpoint / "cfg.json").read_text())
    w = safetensors.numpy.load_file(checkpoint / "sae_weights.safetensors")
    files = sorted(held_out.iterdir())
    x = np.concatenate([safetensors.numpy.load_file(file)["activations"] for file in files]).astype(np.float64)
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    threshold = w.get("threshold", np.zeros(1))
    if config["architecture"] == "topk":
        threshold = np.sort(pre, axis=1)[:, [-config["k"] - 1]]
    features = np.maximum(pre, 0) * (pre > threshold)
    error = np.square(x - (features @ w["W_dec"] + w["b_dec"])).sum()
    measured = evaluate(checkpoint, held_out)
    assert measured.fvu == pytest.approx(error / np.square(x - x.mean(axis=0)).sum(), rel=1e-3)
    assert measured.l0 == pytest.approx((features > 0).sum(axis=1).mean(), rel=1e-3)


def test_layout_is_that_of_saelens(trained: tuple[Path, Path]) -> None:
    checkpoint, _ = trained
    config = json.loads((checkpoint / "cfg.json").read_text())
    weights = safetensors.numpy.load_file(checkpoint / "sae_weights.safetensors")
    architecture = config["architecture"]
    shapes = {"W_enc": (16, 32), "b_enc": (32,), "W_dec": (32, 16), "b_dec": (16,)}
    if architecture == "jumprelu":
        shapes["threshold"] = (32,)
    assert {name: array.shape for name, array in weights.items()} == shapes
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    expected = {
        "architecture": architecture, "d_in": 16, "d_sae": 32, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
    }  # fmt: skip
    if architecture == "topk":
        expected |= {"k": 2, "rescale_acts_by_decoder_norm": False}
    assert {name: value for name, value in config.items() if name != "metadata"} == expected
    np.testing.assert_allclose(np.linalg.norm(weights["W_dec"], axis=1), 1, rtol=1e-5)


def test_activations_of_another_width_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    write_rows(tmp_path, noise(10, 12))
    with pytest.raises(InvalidDatasetError, match=r"width 12, and the autoencoder .* has 16"):
        evaluate(trained[0], tmp_path)


def test_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise())
    with pytest.raises(InvalidInputError, match="not an autoencoder in the SAELens layout"):
        evaluate(tmp_path, tmp_path / "activations")
