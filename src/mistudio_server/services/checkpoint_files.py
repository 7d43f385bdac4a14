"""A checkpoint's files on their way to a client: one file, or a tar of the SAELens folder made while it is sent."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mistudio_server.db.models import Checkpoint
from mistudio_server.errors import NotFoundError

FILES = ("cfg.json", "sae_weights.safetensors")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar with a known size. Its files are open, so a checkpoint that retention removes meanwhile is still sent."""

    size: int
    members: tuple[tuple[bytes, BinaryIO, int], ...]

    def chunks(self) -> Iterator[bytes]:
        """Yield the archive; closes the files at the end."""
        with ExitStack() as stack:
            for _, file, _ in self.members:
                stack.callback(file.close)
            for header, file, size in self.members:
                yield header
                while chunk := file.read(_CHUNK):
                    yield chunk
                yield b"\0" * _padding(size)
            yield b"\0" * (2 * tarfile.BLOCKSIZE)


def single(data_dir: Path, checkpoint: Checkpoint, file: str) -> Path:
    """Return the path of one file.

    Raises:
        NotFoundError: it is not on the disk.
    """
    path = data_dir / checkpoint.path / file
    if not path.is_file():
        raise _gone(checkpoint)
    return path


def archive(data_dir: Path, checkpoint: Checkpoint, folder: str) -> Archive:
    """Return the archive; its members are in ``folder``.

    Raises:
        NotFoundError: the files are not on the disk.
    """
    with ExitStack() as stack:
        members = []
        for name in FILES:
            try:
                file = stack.enter_context((data_dir / checkpoint.path / name).open("rb"))
            except FileNotFoundError:
                raise _gone(checkpoint) from None
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            members.append((_header(f"{folder}/{name}", size, int(checkpoint.created_at.timestamp())), file, size))
        stack.pop_all()
    total = sum(len(header) + size + _padding(size) for header, _, size in members) + 2 * tarfile.BLOCKSIZE
    return Archive(total, tuple(members))


def _header(name: str, size: int, modified: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o644
    return info.tobuf(format=tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _gone(checkpoint: Checkpoint) -> NotFoundError:
    return NotFoundError(
        f"The files of checkpoint {checkpoint.step} are not on the disk any more.",
        hint=f"A newer one may have replaced it: GET /api/v1/trainings/{checkpoint.training_id}/checkpoints.",
    )
