"""Which checkpoints of a training are on disk: what a dead worker had no time to record is found again."""

import hashlib
from pathlib import Path

from mistudio_server.repositories.runs import CheckpointRow

_WEIGHTS = "sae_weights.safetensors"
_WRITTEN_LAST = "state.json"
_PREFIX = "step-"


def checkpoints_on_disk(data_dir: Path, folder: Path, *, up_to: int) -> list[CheckpointRow]:
    """Return the complete checkpoints in ``folder`` up to a step, oldest first. Reads every weights file once."""
    found = []
    for path in sorted(folder.glob(f"{_PREFIX}*")):
        digits = path.name.removeprefix(_PREFIX)
        if digits.isdecimal() and int(digits) <= up_to and (path / _WRITTEN_LAST).is_file():
            size = sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file())
            relative = path.relative_to(data_dir).as_posix()
            found.append(CheckpointRow(int(digits), relative, size, _sha256(path / _WEIGHTS)))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
