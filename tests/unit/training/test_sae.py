"""The architectures' formulas, gradients and invariants."""

from pathlib import Path

import pytest
import torch

from mistudio_server.statuses import SaeArchitecture
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.resampling import resample_features
from mistudio_server.training.sae.base import SparseAutoencoder
from mistudio_server.training.sae.build import build_sae
from mistudio_server.training.sae.jumprelu import JumpReluSae
from mistudio_server.training.sae.standard import StandardSae
from mistudio_server.training.sae.topk import TopKSae
from mistudio_server.training.trainer import Trainer
from tests.unit.training.synthetic import noise, small_job, write_rows

pytestmark = pytest.mark.train

ALL = pytest.mark.parametrize("architecture", list(SaeArchitecture))
NONE_DEAD = torch.zeros(32, dtype=torch.bool)


def initialised(architecture: SaeArchitecture) -> SparseAutoencoder:
    sae = build_sae(Hyperparameters(architecture=architecture, dictionary_size=32, k=4), d_model=8)
    sae.initialise(torch.Generator().manual_seed(0), torch.full((8,), 0.5))
    return sae


def batch(rows: int = 20) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))


@ALL
def test_first_weights_are_unit_rows_tied_and_centred(architecture: SaeArchitecture) -> None:
    sae = initialised(architecture)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    torch.testing.assert_close(sae.W_enc, sae.W_dec.T * sae.encoder_scale())
    assert sae.b_dec.tolist() == [0.5] * 8


@ALL
def test_forward_is_the_decoded_code(architecture: SaeArchitecture) -> None:
    sae, x = initialised(architecture), batch()
    features = sae.encode(x)
    assert features.shape == (20, 32)
    assert bool((features >= 0).all())
    torch.testing.assert_close(sae(x), features @ sae.W_dec + sae.b_dec)
    result = sae.losses(x, sparsity_weight=1.0, dead=NONE_DEAD)
    torch.testing.assert_close(result.output, sae(x))
    torch.testing.assert_close(result.reconstruction, (x - sae(x)).square().mean())


def test_standard_loss_adds_the_l1_norm() -> None:
    sae, x = initialised(SaeArchitecture.STANDARD), batch()
    assert isinstance(sae, StandardSae)
    result = sae.losses(x, sparsity_weight=0.5, dead=NONE_DEAD)
    expected = result.reconstruction + 5e-3 * 0.5 * result.features.abs().sum(dim=1).mean()
    torch.testing.assert_close(result.loss, expected)


def test_topk_keeps_the_k_largest() -> None:
    sae, x = initialised(SaeArchitecture.TOPK), batch()
    pre, features = sae.pre_activations(x), sae.encode(x)
    kept = pre.topk(4, dim=1).indices
    torch.testing.assert_close(features.gather(1, kept), pre.gather(1, kept).relu())
    assert int((features > 0).sum(dim=1).max()) <= 4


def test_topk_auxiliary_loss_reaches_only_dead_features() -> None:
    sae, x = initialised(SaeArchitecture.TOPK), batch()
    assert isinstance(sae, TopKSae)
    with torch.no_grad():
        sae.b_enc[:3] = -100  # never among the k, but among the dead
    dead = torch.zeros(32, dtype=torch.bool)
    dead[:3] = True
    sae.losses(x, sparsity_weight=1.0, dead=NONE_DEAD).loss.backward()
    assert float(sae.W_dec.grad[:3].abs().sum()) == 0
    with torch.no_grad():
        sae.b_enc[:3] = 0.1
        sae.b_enc[3:] = 50  # the dead ones are still never among the k
    sae.zero_grad()
    result = sae.losses(x, sparsity_weight=1.0, dead=dead)
    assert result.loss.item() > result.reconstruction.item()
    (result.loss - result.reconstruction).backward()
    assert float(sae.W_dec.grad[:3].abs().sum()) > 0
    assert float(sae.W_dec.grad[3:].abs().sum()) == 0


def test_jumprelu_zeroes_up_to_the_threshold_and_passes_the_rest() -> None:
    sae = initialised(SaeArchitecture.JUMPRELU)
    assert isinstance(sae, JumpReluSae)
    with torch.no_grad():
        sae.threshold[:] = 0.5
    pre = torch.tensor([[-1.0, 0.3, 0.5, 0.6] * 8])
    assert sae.activate(pre)[0, :4].tolist() == [0.0, 0.0, 0.0, pytest.approx(0.6)]


def test_jumprelu_straight_through_gradients_are_the_papers() -> None:
    """theta = 1, bandwidth 0.2: inside (0.9, 1.1) df/dtheta = -theta/bandwidth and dH/dtheta = -1/bandwidth."""
    sae = JumpReluSae(1, 3, l0_coefficient=1.0, bandwidth=0.2, initial_threshold=1.0)
    pre = torch.tensor([[0.5, 0.95, 1.05]], requires_grad=True)
    sae.activate(pre).sum().backward()
    assert sae.threshold.grad.tolist() == pytest.approx([0.0, -5.0, -5.0])
    assert pre.grad.tolist() == [[0.0, 0.0, 1.0]]


def test_jumprelu_l0_loss_raises_thresholds_that_are_near() -> None:
    sae, x = initialised(SaeArchitecture.JUMPRELU), batch(200)
    assert isinstance(sae, JumpReluSae)
    result = sae.losses(x, sparsity_weight=1.0, dead=NONE_DEAD)
    (result.loss - result.reconstruction).backward()
    gradient = sae.threshold.grad
    assert bool((gradient <= 0).all())  # descent raises the threshold
    assert float(gradient.sum()) < 0
    expected = 1e-2 * (result.features > 0).sum(dim=1).float().mean()
    torch.testing.assert_close(result.loss - result.reconstruction, expected)


@ALL
def test_decoder_rows_stay_unit_and_their_gradient_tangent(architecture: SaeArchitecture, tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise())
    hyperparameters = small_job(tmp_path, architecture=architecture, learning_rate=0.1).hyperparameters
    trainer = Trainer(ActivationStore(tmp_path / "activations"), hyperparameters, torch.device("cpu"))
    trainer.initialise()
    for _ in range(15):
        trainer.advance(measure=False)
        torch.testing.assert_close(trainer.sae.W_dec.norm(dim=1), torch.ones(64))
    sae = trainer.sae
    sae.W_dec.grad = torch.randn(sae.W_dec.shape)
    sae.project_decoder_gradient()
    torch.testing.assert_close((sae.W_dec.grad * sae.W_dec).sum(dim=1), torch.zeros(64), atol=1e-5, rtol=0)
    trainer.close()


@ALL
def test_exported_weights_act_on_unscaled_activations_alike(architecture: SaeArchitecture, tmp_path: Path) -> None:
    write_rows(tmp_path / "activations", noise() * 40 + 3)
    hyperparameters = small_job(tmp_path, architecture=architecture).hyperparameters
    trainer = Trainer(ActivationStore(tmp_path / "activations"), hyperparameters, torch.device("cpu"))
    trainer.initialise()
    for _ in range(10):
        trainer.advance(measure=False)
    exported = build_sae(hyperparameters, 16)
    exported.load_state_dict(trainer.weights())
    x = torch.from_numpy(noise(50, seed=3) * 40 + 3)
    assert trainer.scale == pytest.approx(4 / 160, rel=0.2)
    torch.testing.assert_close(exported(x), trainer.sae(x * trainer.scale) / trainer.scale, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(exported.W_dec.norm(dim=1), torch.ones(64))
    trainer.close()


@ALL
def test_resampled_features_point_at_badly_rebuilt_inputs(architecture: SaeArchitecture) -> None:
    sae = initialised(architecture)
    optimizer = torch.optim.Adam(sae.parameters())
    sae.losses(batch(), sparsity_weight=1.0, dead=NONE_DEAD).loss.backward()
    optimizer.step()
    dead = torch.zeros(32, dtype=torch.bool)
    dead[[3, 9]] = True
    before = sae.W_dec.detach().clone()
    x = batch(500)
    assert resample_features(sae, optimizer, dead, [x], torch.Generator().manual_seed(0)) == 2
    sae.requires_grad_(requires_grad=False)
    directions = torch.nn.functional.normalize(x - sae.b_dec, dim=1)
    for feature in (3, 9):
        assert float((directions @ sae.W_dec[feature]).max()) == pytest.approx(1.0, abs=1e-5)
        assert float(sae.b_enc[feature]) == 0
    torch.testing.assert_close(sae.W_dec[~dead], before[~dead])
    ratio = sae.W_enc[:, dead].norm(dim=0) / sae.W_enc[:, ~dead].norm(dim=0).mean()
    torch.testing.assert_close(ratio, torch.full((2,), 0.2))
    moments = optimizer.state[sae.W_enc]["exp_avg"]
    assert float(moments[:, dead].abs().sum()) == 0
    assert float(moments[:, ~dead].abs().sum()) > 0


def test_nothing_dead_resamples_nothing() -> None:
    sae = initialised(SaeArchitecture.TOPK)
    optimizer = torch.optim.Adam(sae.parameters())
    assert resample_features(sae, optimizer, NONE_DEAD, [batch()], torch.Generator()) == 0
