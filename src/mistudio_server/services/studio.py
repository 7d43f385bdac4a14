"""What one API process works with, made once at start and passed to whoever needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistudio_server.db.engine import Database
from mistudio_server.realtime.publisher import Publisher
from mistudio_server.services.ports import JobQueue
from mistudio_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Studio:
    """The parts. ``torch_installed`` is a probe, so that a test can say what is installed."""

    settings: Settings
    database: Database
    publisher: Publisher
    jobs: JobQueue
    torch_installed: Callable[[], bool]

    @property
    def data_dir(self) -> Path:
        """The folder below which every file lies, resolved."""
        return self.settings.data_dir.resolve()
