"""The checkpoint files of a training whose rows come back: laid ready before, named after."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.checkpoints import PutBack

_PATHS = "SELECT path FROM checkpoints WHERE training_id = %s ORDER BY step"


def training_files(
    workplace: Workplace, stored: StoredBackup, identities: tuple[Any, ...], training: str | None, *, replace: bool
) -> PutBack | None:
    """Return the checkpoints of a training on their way; None for none. Without ``replace``, those there stay."""
    if training is None:
        return None
    return PutBack(workplace, stored, identities, secrets.token_hex(4), training, only_missing=not replace)


@contextmanager
def files_ready(files: PutBack | None) -> Iterator[None]:
    """Lay them ready; away with them if the block fails.

    Raises:
        PreconditionError: they cannot be written.
    """
    if files is None:
        yield
        return
    try:
        _stage(files)
        yield
    except BaseException:
        files.discard()
        raise


def place_files(workplace: Workplace, access: DatabaseAccess, files: PutBack | None) -> int:
    """Give them their names; return the number of checkpoints. Say which rows have no file even so."""
    if files is None:
        return 0
    placed = files.place()
    with access.session() as connection:
        paths = [str(path) for (path,) in connection.execute(_PATHS, (files.training,)).fetchall()]
    missing = [path for path in paths if not (workplace.environment.data / path).exists()]
    if missing:
        workplace.reporter.warning(
            f"{len(missing)} of {len(paths)} checkpoints of {files.training} have no file, as {missing[0]}",
            hint="this backup holds none of them; backups made with --include checkpoints do",
        )
    return placed


def _stage(files: PutBack) -> None:
    try:
        files.stage()
    except OSError as error:
        raise PreconditionError(
            f"checkpoint files cannot be written below {files.root}: {error.strerror}",
            hint="make room there, and try again; nothing was changed",
        ) from error
