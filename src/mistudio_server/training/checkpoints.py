"""Checkpoints on the disk: whole or not there, verified when read, the newest few kept. Needs numpy only.

A checkpoint is the folder ``step-0000000100`` with ``sae_weights.safetensors`` and ``cfg.json`` (the SAELens layout),
``state.safetensors`` (optimizer, counters, generator) and ``state.json``, written last, which holds the sha256 of the
others and its own. It is made under a temporary name, synced and renamed. One that does not verify is set aside as
``corrupt-step-...``, one that its database does not reach as ``ahead-step-...``, so that a person can look at it and
nothing reads it again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistudio_server.training.durable import (
    TEMPORARY_PREFIX,
    FreeBytes,
    disk_free_bytes,
    full_disk_named,
    publish,
    remove_folder,
    remove_leftovers,
    require_free,
    synced_file,
)
from mistudio_server.training.safetensors_file import (
    Array,
    GarbledFileError,
    read_tensors,
    sha256_of,
    write_tensors,
    written_size,
)

WEIGHTS_FILE = "sae_weights.safetensors"
CONFIG_FILE = "cfg.json"
STATE_FILE = "state.safetensors"
META_FILE = "state.json"
_FORMAT = 1
_PREFIX = "step-"
_CORRUPT_PREFIX, _AHEAD_PREFIX = "corrupt-", "ahead-"


class CorruptCheckpointError(ValueError):
    """A checkpoint is not whole; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a training needs to go on after ``step``. ``config`` is ``cfg.json``, ``meta`` is free JSON."""

    step: int
    weights: dict[str, Array]
    state: dict[str, Array]
    config: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is complete on the disk. ``sha256`` is that of its weights file."""

    step: int
    path: Path
    size_bytes: int
    sha256: str
    removed_steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The newest checkpoint that can be used, if any, and why newer ones were passed over: damaged, or ahead."""

    saved: Saved | None
    snapshot: Snapshot | None
    passed_over: tuple[str, ...]
    ahead: tuple[str, ...] = ()


class CheckpointStore:
    """The checkpoints of one training, in the folder ``root``, of which the newest ``kept`` stay."""

    def __init__(self, root: Path, *, kept: int, free_bytes: FreeBytes = disk_free_bytes) -> None:
        self._root, self._kept, self._free_bytes = root, kept, free_bytes

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, oldest first; none of them is verified."""
        names = (path.name.removeprefix(_PREFIX) for path in self._root.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def path_of(self, step: int) -> Path:
        """Return where the checkpoint of ``step`` is or would be."""
        return self._root / f"{_PREFIX}{step:010d}"

    def save(self, snapshot: Snapshot) -> Saved:
        """Write a checkpoint, then remove those over the number kept.

        Raises ``InsufficientStorageError`` before writing when there is not enough room, or when the disk becomes
        full on the way; the earlier checkpoints are then whole and nothing of the new one is left.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._root)
        what = f"The checkpoint of step {snapshot.step}"
        require_free(self._root, _expected_size(snapshot), what, free_bytes=self._free_bytes)
        temporary = self._root / f"{TEMPORARY_PREFIX}{_PREFIX}{snapshot.step:010d}-{os.getpid()}"
        try:
            with full_disk_named(self._root, what.lower()):
                temporary.mkdir()
                hashes = _write_files(temporary, snapshot)
                publish(temporary, self.path_of(snapshot.step))
        except BaseException:
            remove_leftovers(self._root)
            raise
        return self._saved(snapshot.step, hashes[WEIGHTS_FILE], self._remove_old())

    def load_newest(self, ahead: Callable[[Snapshot], str | None] = lambda _: None) -> Loaded:
        """Return the newest checkpoint that verifies and is not ``ahead``; set the others aside.

        ``ahead`` returns why a checkpoint must not be used although it is whole; None when it may be.
        """
        remove_leftovers(self._root)
        damaged: list[str] = []
        too_new: list[str] = []
        for step in reversed(self.steps()):
            try:
                snapshot, sha256 = load_snapshot(self.path_of(step))
            except CorruptCheckpointError as error:
                damaged.append(f"{error}; it was set aside as {self._set_aside(step, _CORRUPT_PREFIX)}")
                continue
            reason = ahead(snapshot)
            if reason is None:
                return Loaded(self._saved(step, sha256, ()), snapshot, tuple(damaged), tuple(too_new))
            too_new.append(f"{reason}; it was set aside as {self._set_aside(step, _AHEAD_PREFIX)}")
        return Loaded(None, None, tuple(damaged), tuple(too_new))

    def _saved(self, step: int, sha256: str, removed: tuple[int, ...]) -> Saved:
        path = self.path_of(step)
        size = sum(file.stat().st_size for file in path.iterdir())
        return Saved(step, path, size, sha256, removed)

    def _remove_old(self) -> tuple[int, ...]:
        removed = tuple(self.steps()[: -self._kept])
        for step in removed:
            remove_folder(self.path_of(step))
        return removed

    def _set_aside(self, step: int, prefix: str) -> str:
        path = self.path_of(step)
        aside = path.with_name(f"{prefix}{path.name}")
        if aside.exists():
            remove_folder(aside)
        path.rename(aside)
        return aside.name


def load_snapshot(path: Path) -> tuple[Snapshot, str]:
    """Verify and load the checkpoint in the folder ``path``; return it and the sha256 of its weights file.

    Raises ``CorruptCheckpointError``.
    """
    try:
        document = _verified_meta(path)
        _check_hashes(path, document["sha256"])
        snapshot = Snapshot(
            step=document["step"],
            weights=read_tensors(path / WEIGHTS_FILE),
            state=read_tensors(path / STATE_FILE),
            config=json.loads((path / CONFIG_FILE).read_bytes()),
            meta=document["meta"],
        )
    except CorruptCheckpointError:
        raise
    except (OSError, GarbledFileError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(f"Checkpoint {path} cannot be read: {type(error).__name__}: {error}") from error
    return snapshot, document["sha256"][WEIGHTS_FILE]


def _verified_meta(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / META_FILE).read_bytes())
    if document.pop("self_sha256") != _digest(document):
        raise CorruptCheckpointError(f"Checkpoint {path}: {META_FILE} does not have the recorded sha256")
    if document["format"] != _FORMAT:
        raise CorruptCheckpointError(f"Checkpoint {path} has format {document['format']}; this release reads {_FORMAT}")
    if path.name.startswith(_PREFIX) and document["step"] != int(path.name.removeprefix(_PREFIX)):
        raise CorruptCheckpointError(f"Checkpoint {path} says that it is of step {document['step']}")
    if not {WEIGHTS_FILE, CONFIG_FILE, STATE_FILE} <= document["sha256"].keys():
        raise CorruptCheckpointError(f"Checkpoint {path}: {META_FILE} lacks the sha256 of a file")
    return document


def _check_hashes(path: Path, recorded: dict[str, str]) -> None:
    for name, sha256 in recorded.items():
        if sha256_of(path / name) != sha256:
            raise CorruptCheckpointError(f"Checkpoint {path}: {name} does not have the recorded sha256")


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _expected_size(snapshot: Snapshot) -> int:
    texts = len(json.dumps(snapshot.meta)) + len(json.dumps(snapshot.config))
    return written_size(snapshot.weights) + written_size(snapshot.state) + texts + (1 << 16)


def _write_files(folder: Path, snapshot: Snapshot) -> dict[str, str]:
    hashes = {}
    for name, tensors in ((WEIGHTS_FILE, snapshot.weights), (STATE_FILE, snapshot.state)):
        with synced_file(folder / name) as file:
            hashes[name] = write_tensors(file, tensors)
    for name, content in _documents(snapshot, hashes):
        with synced_file(folder / name) as file:
            file.write(content)
    return hashes


def _documents(snapshot: Snapshot, hashes: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the two JSON files; ``hashes`` gains the first's before the second is made."""
    config = json.dumps(snapshot.config, indent=2).encode()
    hashes[CONFIG_FILE] = hashlib.sha256(config).hexdigest()
    yield CONFIG_FILE, config
    document = {"format": _FORMAT, "step": snapshot.step, "sha256": hashes, "meta": snapshot.meta}
    yield META_FILE, json.dumps(document | {"self_sha256": _digest(document)}).encode()
