"""A workplace for tests of making backups: a database of the test's own, and a reporter that records."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter
from mistudio_ops.presentation.reporter import Reporter


def workplace_of(
    database_url: str,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    config_file: Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Workplace:
    """Return a workplace on ``database_url``; its files are below ``folder``, ``settings`` are of backups."""
    backup = BackupSettings(**{"directory": folder / "backups", **settings})
    environment = Environment(
        "lab", folder / "state", database_url=database_url, data_dir=folder / "data", backup=backup
    )
    return Workplace(environment, reporter or RecordingReporter(), environ or {}, now, config_file)


def connect(database_url: str) -> "psycopg.Connection[Any]":
    """Open a connection in autocommit mode."""
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True)


def fill(database_url: str, rows: int = 20_000) -> None:
    """Write ``rows`` rows of text that compresses badly into a table of the test's own, and some into a second."""
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS filling (id bigint PRIMARY KEY, content text NOT NULL)")
        connection.execute(
            "INSERT INTO filling SELECT i, md5(i::text) || md5((i * 7)::text) FROM generate_series(1, %s) i", (rows,)
        )
        connection.execute('CREATE TABLE IF NOT EXISTS "Odd name" (x int); INSERT INTO "Odd name" VALUES (1), (2)')


def write_checkpoint(data: Path, training: str, step: int, content: bytes) -> Path:
    """Write a folder as a training's checkpoint has it, with ``content`` as its weights."""
    folder = data / "checkpoints" / training / f"step-{step:010d}"
    folder.mkdir(parents=True)
    (folder / "sae_weights.safetensors").write_bytes(content)
    (folder / "cfg.json").write_text(f'{{"step": {step}}}')
    return folder


@dataclass
class HookedReporter(RecordingReporter):
    """Calls ``hook`` once, when the step whose title begins with ``title`` has advanced by ``after``."""

    title: str = "dumping"
    after: float = 0.0
    hook: Callable[[], None] | None = None

    @contextmanager
    def step(self, title: str, *, total: float | None = None) -> Iterator[Any]:
        """Record it, and watch how far it goes."""
        with super().step(title, total=total) as step:
            yield _Watched(step, self) if title.startswith(self.title) else step


class _Watched:
    def __init__(self, step: Any, reporter: HookedReporter) -> None:
        self._step, self._reporter, self._done = step, reporter, 0.0

    def advance(self, amount: float = 1.0) -> None:
        self._done += amount
        hook = self._reporter.hook
        if hook is not None and self._done > self._reporter.after:
            self._reporter.hook = None
            hook()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)
