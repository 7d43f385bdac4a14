"""Real input: a TopK autoencoder on a real language model's activations beats an untrained one and the mean."""

import tempfile
from pathlib import Path

import pytest

from tests.demo.__main__ import draw, model_dir
from tests.demo.evaluation import evaluator
from tests.demo.scenario import Researcher, Size
from tests.support.studio import Studio

pytestmark = [pytest.mark.acceptance, pytest.mark.train, pytest.mark.xdist_group("studio")]


async def test_topk_on_minilm(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    backend = studio.units()["backend-2"]
    researcher = Researcher(studio.url, f"http://127.0.0.1:{backend['ports'][0]}", lambda *_: None)
    with tempfile.TemporaryDirectory() as workdir:
        try:
            outcome = await researcher.run(
                model_dir(), evaluator(studio.data_dir), Size(total_steps=300), Path(workdir)
            )
        finally:
            await researcher.close()
    assert outcome.fvu < 0.5 * outcome.fvu_mean_baseline
    assert outcome.fvu < 0.5 * outcome.fvu_untrained
    assert outcome.fvu_mean_baseline == pytest.approx(1.0, abs=0.05)
    steps = [event["step"] for event in outcome.events]
    assert steps == sorted(set(steps))
    assert steps[-1] == 300
    assert {"cfg.json", "sae_weights.safetensors"} <= set(outcome.checkpoint_files)
    draw(outcome)
    assert f"FVU on held-out text: {outcome.fvu:.3f} trained" in capsys.readouterr().out
