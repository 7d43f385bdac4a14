"""The residual stream after a block, without running the blocks above it."""

from typing import Any

import torch
from torch import Tensor, nn


class ResidualStream:
    """``hidden_states[layer]`` of a transformers model.

    Between 1 and the last block but one, that is the output of block ``layer - 1``, and the blocks above it need not
    run: layer 2 of 6 costs a third. Whether a model's blocks are where we think is not taken on trust: the first batch
    is run both ways, and where the two differ the whole model is run from then on. After the last block
    transformers applies a final norm in many models, so that layer always runs whole.
    """

    def __init__(self, model: nn.Module, layers: int) -> None:
        self._model = model
        self._blocks = _blocks_of(model, layers)
        self._verified: dict[int, bool] = {}

    @torch.inference_mode()
    def after(self, layer: int, inputs: dict[str, Tensor]) -> Tensor:
        """Return the hidden state numbered ``layer`` for ``inputs`` (ids and mask), shape [batch, tokens, d_model]."""
        if not 0 < layer < len(self._blocks):
            return self._whole(layer, inputs)
        if layer not in self._verified:
            whole, early = self._whole(layer, inputs), self._early(layer, inputs)
            self._verified[layer] = early is not None and early.shape == whole.shape and torch.equal(early, whole)
            return whole
        early = self._early(layer, inputs) if self._verified[layer] else None
        return self._whole(layer, inputs) if early is None else early

    def _whole(self, layer: int, inputs: dict[str, Tensor]) -> Tensor:
        hidden: Tensor = self._model(**inputs, output_hidden_states=True).hidden_states[layer]
        return hidden

    def _early(self, layer: int, inputs: dict[str, Tensor]) -> Tensor | None:
        handle = self._blocks[layer - 1].register_forward_hook(_stop_with_output)
        try:
            self._model(**inputs)
        except _ReachedError as reached:
            return reached.hidden
        finally:
            handle.remove()
        return None


class _ReachedError(Exception):
    """Not a failure: unwinds the model's forward pass with the block's output."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def _stop_with_output(_module: nn.Module, _inputs: Any, output: Any) -> None:
    raise _ReachedError(output[0] if isinstance(output, tuple) else output)


def _blocks_of(model: nn.Module, layers: int) -> nn.ModuleList:
    """Return the outermost list of ``layers`` modules; an empty one when there is none."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == layers)
    return next(lists, nn.ModuleList())
