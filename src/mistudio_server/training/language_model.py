"""A language model from a local folder: its tokens in windows, and the residual stream after a layer.

Imports torch and transformers. Nothing is downloaded, no code from the folder is run, and weights are read from
safetensors only, never unpickled.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mistudio_server.errors import InvalidInputError
from mistudio_server.training.failures import ModelUnusableError
from mistudio_server.training.residual_stream import ResidualStream
from mistudio_server.training.safetensors_file import Array

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the library when it is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import transformers

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model")
#: Parts that extraction does not use, and that many checkpoints lack.
_UNUSED_PARTS = ("pooler", "lm_head", "cls.", "classifier")


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``context_length`` tokens, and which of them are the text's own."""

    ids: list[int]
    content: list[bool]

    @property
    def rows(self) -> int:
        """How many activation vectors it gives."""
        return sum(self.content)


class LanguageModel:
    """A transformers model and its tokenizer.

    Raises ``ModelUnusableError`` for a folder without configuration, safetensors weights or tokenizer, or whose
    weights do not fit the configuration.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        _check_files(folder)
        self._device = device
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
            self._model, info = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelUnusableError(
                f"The model in {folder} cannot be loaded: {type(error).__name__}: {str(error).strip()[:500]}",
                hint="Save it again with save_pretrained(), model and tokenizer, in one folder.",
            ) from error
        self._check_loaded(folder, info)
        self._model.eval().to(device)
        if device.type == "cpu":
            self._model.float()  # half precision is slow on a CPU, and some operations lack it
        self._stream = ResidualStream(self._model, self.layers)

    def _check_loaded(self, folder: Path, info: dict[str, Any]) -> None:
        missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in _UNUSED_PARTS))
        if missing or info.get("mismatched_keys"):
            names = missing or sorted(str(key[0]) for key in info["mismatched_keys"])
            raise ModelUnusableError(
                f"The weights in {folder} lack {len(names)} tensors of the configuration, such as {names[0]}",
                hint="They would be random: download the model again, all its safetensors files.",
            )
        if not self._tokenizer.is_fast:
            raise ModelUnusableError(
                f"The tokenizer in {folder} has no fast form (tokenizer.json)",
                hint="Convert it: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR).",
            )

    @property
    def layers(self) -> int:
        """The number of blocks: hidden states are numbered 0 (the embedding) to this."""
        return int(self._model.config.get_text_config().num_hidden_layers)

    @property
    def d_model(self) -> int:
        return int(self._model.config.get_text_config().hidden_size)

    @property
    def longest_context(self) -> int:
        """The most tokens that model and tokenizer are made for."""
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)

    def check_layer(self, layer: int) -> None:
        """Raise ``InvalidInputError`` unless ``layer`` is a hidden state of this model."""
        if layer > self.layers:
            raise InvalidInputError(
                f"layer {layer} is over the model's {self.layers}",
                hint=f"Choose 0 (the embedding) to {self.layers} (the output of the last block).",
                errors=[{"field": "layer", "value": layer, "message": f"must be 0 to {self.layers}"}],
            )

    def windows(self, text: str, context_length: int) -> Iterator[Window]:
        """Yield the tokens of ``text`` in windows that do not overlap, each with the model's own special tokens."""
        encoded = self._tokenizer(
            text,
            truncation=True,
            max_length=context_length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        for ids, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            window = Window(ids, [not mark for mark in special])
            if window.rows:
                yield window

    @torch.inference_mode()
    def activations(self, windows: list[Window], layer: int) -> Array:
        """Return the residual stream ``hidden_states[layer]`` of the text's own tokens, float32 [rows, d_model]."""
        length = max(len(window.ids) for window in windows)
        ids = torch.tensor([_pad(window.ids, length, 0) for window in windows])
        present = torch.tensor([_pad([1] * len(window.ids), length, 0) for window in windows])
        content = torch.tensor([_pad(window.content, length, False) for window in windows])
        inputs = {"input_ids": ids.to(self._device), "attention_mask": present.to(self._device)}
        hidden = self._stream.after(layer, inputs)
        rows: Array = hidden[content.to(self._device)].float().cpu().numpy()
        return rows


def _pad(values: list[Any], length: int, filler: Any) -> list[Any]:
    """Pad on the right: any token will do, because the attention mask hides it and its row is dropped."""
    return values + [filler] * (length - len(values))


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelUnusableError(
            f"{folder} has no config.json",
            hint="Give the folder that holds config.json, the weights and the tokenizer.",
        )
    if not any(folder.glob("*.safetensors")):
        pickled = ", only pickled ones (.bin), which can run code" if any(folder.glob("*.bin")) else ""
        raise ModelUnusableError(
            f"{folder} has no .safetensors weights{pickled}",
            hint="Convert them where you trust them: AutoModel.from_pretrained(DIR).save_pretrained(DIR).",
        )
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelUnusableError(
            f"{folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)})",
            hint="Save it there: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR).",
        )
