"""Stopping at a block gives exactly what the whole model gives, and is not trusted where it does not."""

import pytest
import torch
import transformers
from torch import Tensor, nn

from mistudio_server.training.residual_stream import ResidualStream

pytestmark = pytest.mark.train

LAYERS = 4
CONFIGS = {
    "bert": transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32
    ),
    "gpt2": transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=LAYERS, n_head=2, n_positions=32),
    "llama": transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32
    ),
}


def inputs(seed: int) -> dict[str, Tensor]:
    ids = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_is_the_models_own(name: str) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[name]).eval()
    stream = ResidualStream(model, LAYERS)
    for seed in range(2):
        with torch.inference_mode():
            wanted = model(**inputs(seed), output_hidden_states=True).hidden_states
        for layer in range(LAYERS + 1):
            assert torch.equal(stream.after(layer, inputs(seed)), wanted[layer]), (layer, seed)


def test_blocks_above_do_not_run_once_it_is_verified() -> None:
    model = transformers.AutoModel.from_config(CONFIGS["gpt2"]).eval()
    stream = ResidualStream(model, LAYERS)
    stream.after(2, inputs(0))
    runs: list[int] = []
    for number, block in enumerate(model.h):
        block.register_forward_pre_hook(lambda *_, number=number: runs.append(number))
    stream.after(2, inputs(1))
    assert runs == [0, 1]


class _Odd(nn.Module):
    """Its hidden states are not its blocks' outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(LAYERS))

    def forward(
        self, x: Tensor, *, output_hidden_states: bool = False
    ) -> transformers.modeling_outputs.BaseModelOutput:
        for block in self.blocks:
            x = block(x)
        states = tuple(x * (number + 2) for number in range(LAYERS + 1)) if output_hidden_states else None
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=x, hidden_states=states)


def test_a_model_of_another_build_is_run_whole() -> None:
    stream = ResidualStream(_Odd(), LAYERS)
    x = torch.ones(1, 2, 3)
    for _ in range(2):
        assert torch.equal(stream.after(2, {"x": x}), x * 4)
