"""Removing files together with their rows: they are renamed aside first, so nothing half-removed is ever in use."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mistudio_server.ids import new_id
from mistudio_server.observability.logs import logger
from mistudio_server.services.locations import INCOMING, TRASH

_LEFTOVER_AGE_SECONDS = 24 * 3600

log = logger(__name__)


@asynccontextmanager
async def removed_with(data_dir: Path, folder: Path | None) -> AsyncIterator[None]:
    """Rename ``folder`` aside; delete it when the block (which commits) succeeds, put it back when it fails."""
    aside = await asyncio.to_thread(_rename_aside, data_dir, folder) if folder else None
    try:
        yield
    except BaseException:
        if aside and folder:
            aside.rename(folder)
        raise
    if aside:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)


def _rename_aside(data_dir: Path, folder: Path) -> Path | None:
    if not folder.exists():
        return None
    trash = data_dir / TRASH
    trash.mkdir(parents=True, exist_ok=True)
    aside = trash / new_id(folder.name)
    folder.rename(aside)
    return aside


def sweep_leftovers(data_dir: Path, now: float | None = None) -> None:
    """Remove what a killed process left half-uploaded or half-removed more than a day ago."""
    limit = (now or time.time()) - _LEFTOVER_AGE_SECONDS
    for name in (INCOMING, TRASH):
        for left in (data_dir / name).glob("*"):
            if left.stat().st_mtime < limit:
                log.warning("leftover_removed", path=str(left))
                shutil.rmtree(left, ignore_errors=True)
