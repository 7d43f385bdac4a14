"""What files and folders hold, and how unusable ones are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mistudio_server.errors import InvalidDatasetError, InvalidInputError
from mistudio_server.services.inspection import inspect_dataset, inspect_model


def write_model(folder: Path, config: object, *, weights: bytes | None = None) -> Path:
    """Write a model's directory; ``weights`` replaces a proper weights file."""
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is None:
        save_file({"w": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    elif weights:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (None, "no config.json"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([1], "not a JSON object"),
        ({}, "hidden_size"),
        ({"hidden_size": 0, "n_layer": 1}, "hidden_size"),
        ({"hidden_size": True, "n_layer": 1}, "hidden_size"),
        ({"hidden_size": "8", "n_layer": 1}, "hidden_size"),
        ({"hidden_size": 8}, "num_hidden_layers"),
        ({"hidden_size": 2**40, "n_layer": 1}, "hidden_size"),
    ],
)
def test_unusable_configurations(tmp_path: Path, config: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        inspect_model(write_model(tmp_path / "m", config))


@pytest.mark.parametrize(("weights", "told"), [(b"", "pickled"), (b"garbage", "not a safetensors file")])
def test_unusable_weights(tmp_path: Path, weights: bytes, told: str) -> None:
    folder = write_model(tmp_path / "m", {"hidden_size": 8, "n_layer": 1}, weights=weights)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InvalidInputError, match=told):
        inspect_model(folder)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    with pytest.raises(InvalidInputError, match="is a file"):
        inspect_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"architectures": ["GPT2LMHeadModel"], "n_embd": 16, "n_layer": 4}, ("GPT2LMHeadModel", 16, 4)),
        ({"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6}, ("bert", 384, 6)),
        ({"text_config": {"hidden_size": 8, "num_hidden_layers": 2}, "architectures": ["X"]}, ("X", 8, 2)),
        ({"architectures": [], "d_model": 8, "num_layers": 2}, ("unknown", 8, 2)),
    ],
)
def test_models(tmp_path: Path, config: dict[str, Any], found: tuple[str, int, int]) -> None:
    facts = inspect_model(write_model(tmp_path / "m", config))
    assert (facts.architecture, facts.d_model, facts.n_layers) == found
    assert facts.size_bytes > 0


def test_an_empty_folder_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="holds no"):
        inspect_dataset(tmp_path)


def test_several_tensors_need_a_name(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)}, tmp_path / "s.safetensors")
    with pytest.raises(InvalidDatasetError, match="2 tensors"):
        inspect_dataset(tmp_path)
    named = {"activations": np.zeros((3, 4), np.float16), "other": np.zeros(1, np.int64)}
    save_file(named, tmp_path / "s.safetensors")
    facts = inspect_dataset(tmp_path)
    assert (facts.rows, facts.d_model) == (3, 4)


@pytest.mark.parametrize(
    ("content", "lines"), [("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2), ("é" * 700_000 + "\nend\n", 2)]
)
def test_lines_of_text(tmp_path: Path, content: str, lines: int) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    facts = inspect_dataset(tmp_path / "a.txt")
    assert (facts.rows, facts.size_bytes) == (lines, len(content.encode()))


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 2}\n')
    assert inspect_dataset(tmp_path / "a.jsonl").rows == 3


def test_a_shard_of_another_width_is_named(tmp_path: Path) -> None:
    for index, width in enumerate((4, 4, 5)):
        save_file({"activations": np.zeros((2, width), np.float32)}, tmp_path / f"{index}.safetensors")
    with pytest.raises(InvalidDatasetError, match="has width 5") as caught:
        inspect_dataset(tmp_path)
    assert caught.value.errors[0]["value"] == "2.safetensors"
