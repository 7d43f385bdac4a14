"""What a file or folder holds, found out without torch and without loading tensors."""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudio_server.errors import InvalidDatasetError, InvalidInputError
from mistudio_server.statuses import DatasetKind

TEXT_SUFFIXES = (".txt", ".jsonl")
SHARD_SUFFIX = ".safetensors"
FLOAT_TYPES = ("F32", "F16", "BF16")
_CHUNK = 1 << 20
_JSON_LINES_CHECKED = 100


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What was found: ``rows`` are lines of text, or activation vectors of width ``d_model``."""

    kind: DatasetKind
    rows: int
    d_model: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's config.json says, and the size of its files."""

    architecture: str
    d_model: int
    n_layers: int
    size_bytes: int


def inspect_dataset(path: Path) -> DatasetFacts:
    """Return what ``path`` holds: a text file, or a folder of activation shards.

    Raises:
        InvalidDatasetError: neither of them, garbled, empty, or shards that do not fit together.
    """
    if path.is_dir():
        return _inspect_activations(path)
    if path.suffix not in TEXT_SUFFIXES:
        raise _invalid_dataset(
            f"{path.name} is neither text ({', '.join(TEXT_SUFFIXES)}) nor a folder of {SHARD_SUFFIX} shards."
        )
    return _inspect_text(path)


def _inspect_activations(path: Path) -> DatasetFacts:
    shards = sorted(path.glob(f"*{SHARD_SUFFIX}"))
    if not shards:
        raise _invalid_dataset(f"The folder {path.name} holds no {SHARD_SUFFIX} files.")
    rows, d_model = 0, 0
    for shard in shards:
        shard_rows, width = _shard_shape(shard)
        if d_model and width != d_model:
            raise _invalid_dataset(
                f"Shard {shard.name} has width {width}, but the shards before it have {d_model}.",
                value=shard.name,
            )
        rows, d_model = rows + shard_rows, width
    if rows == 0:
        raise _invalid_dataset(f"The shards of {path.name} hold no activation vectors.")
    return DatasetFacts(DatasetKind.ACTIVATIONS, rows, d_model, sum(shard.stat().st_size for shard in shards))


def _shard_shape(shard: Path) -> tuple[int, int]:
    """Return (rows, width) of the one tensor in a shard, from its header."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(shard), framework="numpy") as file:
            names = list(file.keys())
            if len(names) != 1 and "activations" not in names:
                raise _invalid_dataset(
                    f'Shard {shard.name} holds {len(names)} tensors: it needs one, or one named "activations".',
                    value=shard.name,
                )
            tensor = file.get_slice("activations" if "activations" in names else names[0])
            shape, dtype = tensor.get_shape(), str(tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        raise _invalid_dataset(f"Shard {shard.name} is not a safetensors file: {error}.", value=shard.name) from error
    if len(shape) != 2 or shape[1] == 0:  # noqa: PLR2004
        raise _invalid_dataset(f"Shard {shard.name} has shape {shape}: it must be [n, d_model].", value=shard.name)
    if dtype not in FLOAT_TYPES:
        raise _invalid_dataset(
            f"Shard {shard.name} holds {dtype}: it must be one of {', '.join(FLOAT_TYPES)}.", value=shard.name
        )
    return shape[0], shape[1]


def _inspect_text(path: Path) -> DatasetFacts:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, size, last = 0, 0, b"\n"
    try:
        with path.open("rb") as file:
            if path.suffix == ".jsonl":
                _check_json_lines(path)
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
                lines, size, last = lines + chunk.count(b"\n"), size + len(chunk), chunk[-1:]
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _invalid_dataset(f"{path.name} is not UTF-8 text: {error.reason} near byte {size}.") from error
    if size == 0:
        raise _invalid_dataset(f"{path.name} is empty.")
    return DatasetFacts(DatasetKind.TEXT, lines + (last != b"\n"), None, size)


def _check_json_lines(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        for number, line in zip(range(1, _JSON_LINES_CHECKED + 1), file, strict=False):
            if line.strip() and not _has_text(line):
                raise _invalid_dataset(f'Line {number} of {path.name} is not a JSON object with a string "text".')


def _has_text(line: str) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("text"), str)


def inspect_model(path: Path) -> ModelFacts:
    """Return what the Hugging Face directory ``path`` holds.

    Raises:
        InvalidInputError: no folder, no usable config.json, or no safetensors weights.
    """
    if not path.is_dir():
        raise _invalid_model(f"{path.name} is a file: a model is a folder with config.json and safetensors weights.")
    config = _config(path / "config.json")
    weights = sorted(path.glob(f"*{SHARD_SUFFIX}"))
    if not weights:
        raise _invalid_model(
            f"{path.name} holds no {SHARD_SUFFIX} weights (pickled weights are refused: they can run code)."
        )
    for file in weights:
        _check_header(file)
    names = config.get("architectures")
    architecture = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    return ModelFacts(
        architecture=architecture or str(config.get("model_type") or "unknown"),
        d_model=_dimension(config, "hidden_size", "n_embd", "d_model"),
        n_layers=_dimension(config, "num_hidden_layers", "n_layer", "num_layers"),
        size_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _invalid_model(f"{path.parent.name} holds no config.json.") from None
    except (ValueError, RecursionError) as error:
        raise _invalid_model(f"config.json of {path.parent.name} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise _invalid_model(f"config.json of {path.parent.name} is not a JSON object.")
    inner = document.get("text_config")
    return {**inner, **document} if isinstance(inner, dict) else document


def _dimension(config: dict[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
            return value
    raise _invalid_model(f"config.json gives none of {', '.join(names)} as a positive number.")


def _check_header(file: Path) -> None:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(file), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise _invalid_model(f"{file.name} is not a safetensors file: {error}.") from error


def _invalid_dataset(detail: str, value: str | None = None) -> InvalidDatasetError:
    return InvalidDatasetError(
        detail,
        hint="Correct the files, then register the dataset again.",
        errors=[{"field": "body.path", "value": value, "message": detail}],
    )


def _invalid_model(detail: str) -> InvalidInputError:
    return InvalidInputError(
        detail,
        hint="Give a folder as transformers' save_pretrained() writes it, with safe_serialization=True.",
        errors=[{"field": "body.path", "value": None, "message": detail}],
    )
