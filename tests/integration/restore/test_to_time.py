"""Going back to a moment, with a real pgBackRest: between two inserts, and everything that must stop it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from mistudio_ops.domain.point_in_time import config_file, repository, stanza
from mistudio_ops.drivers.database_access import database_access
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.drivers.wal_archive import archive_until_now
from mistudio_ops.errors import NothingFoundError, OpsError, PreconditionError, UsageError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.config_render import render_configuration
from mistudio_ops.operations.restore.lab import Lab
from mistudio_ops.operations.restore.to_time import exchange_folders, moment, restore_to_time
from mistudio_ops.presentation.recording import RecordingReporter
from tests.integration.engine.conftest import Studio, end, new_studio

pytestmark = pytest.mark.integration

#: The newest major version that the pgBackRest of Debian 12 knows.
_NEWEST = 15


def unavailable(reason: str) -> None:
    if "pgbackrest" in os.environ.get("MISTUDIO_TEST_REQUIRE", "").split(","):
        pytest.fail(f"MISTUDIO_TEST_REQUIRE=pgbackrest: {reason}")
    pytest.skip(reason)


@dataclass
class Archived:
    """A studio of stand-in units whose PostgreSQL archives, with a full backup; and ways to what tests do with it."""

    studio: Studio
    failures: dict[str, str]

    @property
    def data(self) -> Path:
        return self.studio.environment.paths.postgres

    @property
    def lab(self) -> Lab:
        return Lab(self.studio.engine, migrate=lambda _: "0001", failures=lambda _: self.failures)

    @property
    def workplace(self) -> Workplace:
        return Workplace(self.studio.environment, RecordingReporter(), {})

    def back(self, when: datetime, confirm: str | None = "mistudio") -> Path:
        return restore_to_time(self.workplace, when, self.lab, self.studio.host, confirm=confirm).kept

    def session(self, *, admin: bool = False) -> "psycopg.Connection[tuple[object, ...]]":
        access = database_access(self.studio.environment, read_secrets(self.studio.environment.paths.secrets))
        return (access.admin if admin else access.owner).connect(access.name)

    def insert(self, word: str) -> datetime:
        """Write a row, see that it is archived, and return a moment after it and before whatever comes next."""
        with self.session() as session:
            session.execute("INSERT INTO words VALUES (%s)", (word,))
        time.sleep(0.05)
        with self.session() as session:
            row = session.execute("SELECT clock_timestamp()").fetchone()
        time.sleep(0.05)
        assert row is not None
        assert isinstance(row[0], datetime)
        return row[0]

    def archive(self) -> None:
        """Send what was written to the archive."""
        with self.session(admin=True) as session:
            archive_until_now(session, seconds=30)

    def words(self) -> list[str]:
        with self.session() as session:
            return [str(word) for (word,) in session.execute("SELECT * FROM words ORDER BY 1")]

    def pgbackrest(self, *arguments: str) -> None:
        secrets = read_secrets(self.studio.environment.paths.secrets)
        assert secrets is not None
        subprocess.run(
            [
                "pgbackrest", f"--config={config_file(self.studio.environment)}",
                f"--stanza={stanza(self.studio.environment)}", *arguments,
            ],
            check=True, cwd="/", env={"PATH": os.environ["PATH"], "PGPASSWORD": secrets.postgres_admin_password},
            **self.studio.host.account.popen(),
        )  # fmt: skip


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    if shutil.which("pgbackrest") is None:
        unavailable("pgbackrest is not installed")
    studio = new_studio()
    if studio.host.programs.postgres.major > _NEWEST:
        unavailable(f"the PostgreSQL here is newer than {_NEWEST}, which this pgbackrest does not know")
    try:
        studio.deploy()
        made = Archived(studio, {})
        set_up(made)
        yield made
    finally:
        end(studio)


def set_up(archived: Archived) -> None:
    """Follow the steps that the rendered configuration tells."""
    environment, account = archived.studio.environment, archived.studio.host.account
    text = render_configuration(environment, "pgbackrest")
    config = config_file(environment)
    config.write_text(text)
    config.parent.chmod(0o755)
    config.chmod(0o644)
    repository(environment).mkdir(mode=0o700)
    account.own(repository(environment))
    with archived.session(admin=True) as session:
        for line in text.splitlines():
            if "ALTER SYSTEM" in line:
                session.execute(line.removeprefix("#").strip().encode())
    unit = archived.studio.engine.definition("postgres")
    assert unit is not None
    archived.studio.engine.stop("postgres")
    archived.studio.engine.start(unit)
    wait_for_server(archived)
    archived.pgbackrest("stanza-create")
    with archived.session() as session:
        session.execute("CREATE TABLE words (word text)")
    archived.pgbackrest("--type=full", "backup")
    time.sleep(2)  # pgBackRest counts in whole seconds


def wait_for_server(archived: Archived) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            archived.session().close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_back_to_between_two_inserts(archived: Archived) -> None:
    between = archived.insert("first")
    archived.insert("second, by mistake")
    before = archived.words()
    kept = archived.back(between)
    assert archived.words() == [word for word in before if word != "second, by mistake"]
    assert (kept / "PG_VERSION").is_file()
    assert {name for name, state in archived.studio.states.items() if not state.running} == set()
    later = archived.insert("third")  # on the new timeline, from which one can go back as well
    archived.insert("fourth")
    archived.back(later)
    assert {"third", "fourth"} & set(archived.words()) == {"third"}


def test_a_lab_that_is_not_well_afterwards_goes_back(archived: Archived) -> None:
    moment_before = archived.insert("a")
    archived.insert("b")
    before = archived.words()
    archived.failures = {"api": "answers 500"}
    try:
        with pytest.raises(OpsError, match="api: answers 500"):
            archived.back(moment_before)
    finally:
        archived.failures = {}
    assert archived.words() == before
    assert {name for name, state in archived.studio.states.items() if not state.running} == set()
    assert list(archived.data.parent.glob("postgres.to-time-*")) == []


def test_without_confirmation_nothing_happens(archived: Archived) -> None:
    with pytest.raises(UsageError, match="would be lost") as caught:
        archived.back(datetime.now(UTC), confirm=None)
    assert "--confirm mistudio" in (caught.value.hint or "")


@pytest.mark.parametrize("shift", [timedelta(days=-30), timedelta(hours=1)], ids=["before the backup", "tomorrow"])
def test_a_moment_outside_the_archive(archived: Archived, shift: timedelta) -> None:
    with pytest.raises(NothingFoundError, match="the archive reaches from"):
        archived.back(datetime.now(UTC) + shift)


def test_what_a_killed_run_left_is_removed_and_old_databases_are_not(archived: Archived) -> None:
    left = archived.data.with_name("postgres.to-time-partial-00000000")
    kept = archived.data.with_name("postgres.before-00000000")
    for folder in (left, kept):
        folder.mkdir()
    when = archived.insert("x")
    archived.insert("y")
    archived.back(when)
    assert not left.exists()
    assert kept.exists()
    kept.rmdir()


def test_an_archive_with_a_gap_changes_nothing(archived: Archived, tmp_path: Path) -> None:
    """The changes up to the moment are not all there: the server refuses to come up, and the live one goes on."""
    archived.insert("p")
    archived.archive()
    when = archived.insert("q")
    before = archived.words()
    segments = (repository(archived.studio.environment) / "archive").rglob("0*.zst")
    lost = max(segments, key=lambda path: path.stat().st_mtime_ns)  # by name it may be of another test's timeline
    aside = Path(shutil.copy2(lost, tmp_path))
    lost.unlink()
    try:
        with pytest.raises(OpsError, match="recovery ended before configured recovery target"):
            archived.back(when)
    finally:
        shutil.copy2(aside, lost)
        archived.studio.host.account.own(lost)
    assert archived.words() == before
    assert list(archived.data.parent.glob("postgres.to-time-*")) == []


def test_a_server_that_archives_nothing(database_url: str) -> None:
    with (
        psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as session,
        pytest.raises(PreconditionError, match="archive_mode is off"),
    ):
        archive_until_now(session, seconds=1)


def test_not_configured(archived: Archived) -> None:
    config = config_file(archived.studio.environment)
    aside = config.rename(config.with_suffix(".aside"))
    try:
        with pytest.raises(PreconditionError, match="is not configured") as caught:
            archived.back(datetime.now(UTC))
        assert "config render pgbackrest" in (caught.value.hint or "")
    finally:
        aside.rename(config)


def test_not_installed(archived: Archived, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionError, match="not installed"):
        archived.back(datetime.now(UTC))


def test_somebody_elses_server(archived: Archived) -> None:
    environment = replace(archived.studio.environment, database_url="postgresql+psycopg://lab@127.0.0.1:1/lab")
    workplace = Workplace(environment, RecordingReporter(), {})
    with pytest.raises(PreconditionError, match="run by somebody else"):
        restore_to_time(workplace, datetime.now(UTC), archived.lab, archived.studio.host, confirm="lab")


@pytest.mark.parametrize("text", ["yesterday", "2026-11-23 02:00:00", ""])
def test_a_moment_needs_a_time_zone(text: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        moment(text)


def test_folders_change_names_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    exchange_folders(one, other)
    assert [path.name for path in one.iterdir()] == ["other"]
    assert [path.name for path in other.iterdir()] == ["one"]
    with pytest.raises(PreconditionError, match="cannot exchange"):
        exchange_folders(one, tmp_path / "nowhere")
