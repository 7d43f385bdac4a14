"""A lab to restore: a real database, a journal and locks, and units that only pretend to run."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.engines.state_files import marker
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.lab import Lab
from mistudio_ops.operations.restore.restore import Options
from mistudio_ops.presentation.plain import PlainStep
from mistudio_ops.presentation.recording import RecordingReporter
from mistudio_ops.testing import FakeEngine
from mistudio_server.db import migrations

UNITS = ("backend-1", "backend-2", "worker-1", "beat")


@dataclass
class FakeLab:
    """Units in memory; migrations are real. ``answers`` are what health says, call by call; then all is well."""

    database_url: str
    engine: FakeEngine = field(default_factory=FakeEngine)
    answers: list[dict[str, str]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine.pid = 4_000_000
        for name in UNITS:
            kind = name.partition("-")[0]
            self.engine.start(Unit(name, kind, ("true",), {}, "/"))  # type: ignore[arg-type]
        self.engine.calls.clear()

    @property
    def lab(self) -> Lab:
        """What a restore takes."""
        return Lab(self.engine, self._migrate, self._failures)

    @property
    def running(self) -> set[str]:
        """Units that run."""
        return {name for name, state in self.engine.states().items() if state.running}

    def _migrate(self, dbname: str) -> str:
        return str(migrations.upgrade(make_url(self.database_url).set(database=dbname)).current)

    def _failures(self, seconds: float) -> dict[str, str]:
        self.asked.append(seconds)
        return self.answers.pop(0) if self.answers else {}


@dataclass
class Restorable:
    """A workplace with a database of a few rows, one backup of it, and rows that came after."""

    workplace: Workplace
    access: DatabaseAccess
    fake: FakeLab
    stored: StoredBackup

    @property
    def lab(self) -> Lab:
        """What a restore takes."""
        return self.fake.lab

    @property
    def reporter(self) -> RecordingReporter:
        """What was told."""
        assert isinstance(self.workplace.reporter, RecordingReporter)
        return self.workplace.reporter

    def confirmed(self, **changes: object) -> Options:
        """Options that confirm."""
        return Options(confirm=self.access.name, jobs=1, **changes)  # type: ignore[arg-type]

    def rows(self, dbname: str | None = None) -> list[int]:
        """The numbers in the table of the test."""
        with self.access.session(dbname) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM counting ORDER BY number")]

    def add(self, *numbers: int) -> None:
        """Write numbers into the live database."""
        with self.access.session() as connection:
            for number in numbers:
                connection.execute("INSERT INTO counting VALUES (%s)", (number,))

    def ours(self) -> list[str]:
        """Databases beside the live one, by purpose."""
        return sorted(one.purpose for one in databases.list_ours(self.access))

    def names(self) -> list[str]:
        """Their names."""
        return [one.name for one in databases.list_ours(self.access)]

    def backups(self, kind: str) -> list[StoredBackup]:
        """Backups of one kind."""
        return [one for one in self.workplace.directory.all() if one.manifest and one.manifest.kind == kind]


def restorable(workplace: Workplace, database_url: str, *, checkpoints: bool = False) -> Restorable:
    """Return a lab whose backup has the numbers 1 to 3, and whose database has 4 and 5 too."""
    environment = workplace.environment
    environment.state_dir.mkdir(parents=True, exist_ok=True)
    environment.data.mkdir(parents=True, exist_ok=True)
    marker(environment.paths).write_text("{}")
    access = workplace.access()
    with access.session() as connection:
        connection.execute("CREATE TABLE counting (number int PRIMARY KEY)")
        connection.execute("INSERT INTO counting VALUES (1), (2), (3)")
    stored = create(workplace, kind="manual", include=("checkpoints",) if checkpoints else ())
    made = Restorable(workplace, access, FakeLab(database_url), stored)
    made.add(4, 5)
    return made


def purge(postgres_admin: str, access: DatabaseAccess) -> None:
    """Drop what restores left beside the live database of a test, and let its fixture drop the live one."""
    with psycopg.connect(postgres_admin, autocommit=True) as admin:
        for one in databases.list_ours(access):
            databases.drop_database(access, one.name)
        if not databases.exists(access, access.name):
            admin.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(access.name)))


class KillingReporter(RecordingReporter):
    """Ends this process like SIGKILL when a step whose title begins so is entered, or left."""

    def __init__(self, title: str, when: str) -> None:
        super().__init__()
        self._title, self._when = title, when

    def step(self, title: str, *, total: float | None = None) -> "_Killing":  # type: ignore[override]
        """Kill on the way in or out."""
        del total
        return _Killing(self._when if title.startswith(self._title) else "")


class _Killing:
    def __init__(self, when: str) -> None:
        self._when = when

    def __enter__(self) -> PlainStep:
        if self._when == "before":
            os._exit(99)
        return PlainStep()

    def __exit__(self, *_: object) -> None:
        if self._when == "after":
            os._exit(99)


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process and return its exit code: 0, 99 when it was killed, 1 for an error."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child must never return into pytest
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write_checkpoint(data: Path, training: str, step: int, content: str = "") -> Path:
    """Write a folder that looks like a checkpoint."""
    folder = data / "checkpoints" / training / f"step-{step:010d}"
    folder.mkdir(parents=True)
    (folder / "sae_weights.safetensors").write_text(f"weights {training} {step} {content}" * 100)
    (folder / "state.json").write_text(f"{step}")
    return folder
