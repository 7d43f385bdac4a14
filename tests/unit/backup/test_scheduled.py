"""A night's work: what runs after what failed, what is remembered, and who is told."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mistudio_ops.cli.app import TerminatedError
from mistudio_ops.domain.backup import StoredBackup, Verification
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.scheduled_run import ScheduledRun, Stage
from mistudio_ops.drivers.encryption import WrongKeyError
from mistudio_ops.drivers.messages import NotDeliveredError, require, send, split_urls
from mistudio_ops.errors import ExitCode, LockedError, OpsError, PreconditionError, UsageError
from mistudio_ops.operations.backup.check import last_run, run_file
from mistudio_ops.operations.backup.notify import notify_outcome, require_notify
from mistudio_ops.operations.backup.prune import Pruned, prune_locked
from mistudio_ops.operations.backup.scheduled import PROVE_EVERY, Stages, run_scheduled
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.backup_schedule import run_result
from mistudio_ops.presentation.deferred import DeferredReporter
from mistudio_ops.presentation.plain import draw
from mistudio_ops.presentation.recording import RecordingReporter
from mistudio_ops.presentation.reporter import ErrorReport
from tests.support.backups import NOON, put, workplace
from tests.support.listener import listener

#: apprise loads all its services, and one of them a module that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
DESTINATIONS = BackupSettings(destinations=("/a", "s3://b"))


class Night:
    """Stages that do their work in the directory, and fail where they are told to."""

    def __init__(self, **failures: Exception) -> None:
        self.failures = failures
        self.order: list[str] = []

    def stages(self) -> Stages:
        return Stages(self.create, self.prove, self.push, self.prune, self.prune_copies)

    def create(self, place: Workplace, _: float) -> StoredBackup:
        self._step("create")
        return put(place.directory, place.now())

    def prove(self, place: Workplace, stored: StoredBackup) -> Verification:
        self._step("prove")
        done = Verification("restore", place.now(), "rotten" not in self.failures, "one row is missing")
        place.directory.record(stored.id, done)
        return done

    def push(self, _: Workplace, stored: StoredBackup, url: str) -> str:
        self._step(f"push {url}")
        return f"{stored.id} to {url}"

    def prune(self, place: Workplace) -> Pruned:
        self._step("prune")
        return prune_locked(place)

    def prune_copies(self, _: Workplace, url: str) -> str:
        self._step(f"prune {url}")
        return f"0 removed at {url}"

    def run(self, place: Workplace) -> ScheduledRun:
        return run_scheduled(place, stages=self.stages(), lock_wait=0)

    def _step(self, name: str) -> None:
        self.order.append(name)
        if error := self.failures.get(name.split(" ", maxsplit=1)[0]):
            raise error


def said(run: ScheduledRun) -> list[tuple[str, str]]:
    return [(one.name, one.outcome) for one in run.stages]


def test_a_good_night(tmp_path: Path) -> None:
    place, night = workplace(tmp_path, settings=DESTINATIONS), Night()
    run = night.run(place)
    assert night.order == ["create", "prove", "push /a", "push s3://b", "prune", "prune /a", "prune s3://b"]
    assert run.exit_code == ExitCode.OK
    assert run.problem is None
    assert run.backup_id == place.directory.all()[-1].id
    assert last_run(place) == run
    assert run_file(place).stat().st_mode & 0o077 == 0


def test_it_is_proven_weekly_and_not_a_night_later(tmp_path: Path) -> None:
    proven = []
    for day in range(16):
        place, night = workplace(tmp_path, now=NOON + timedelta(days=day, minutes=-day)), Night()
        night.run(place)
        proven += [day] if "prove" in night.order else []
    assert proven == [0, 7, 14]


def test_a_proof_from_the_future_is_none(tmp_path: Path) -> None:
    place, night = workplace(tmp_path), Night()
    ahead = put(place.directory, NOON)
    place.directory.record(ahead.id, Verification("restore", NOON + 99 * PROVE_EVERY, ok=True))
    night.run(place)
    assert "prove" in night.order


def test_without_a_new_backup_the_last_one_is_copied_and_nothing_is_removed(tmp_path: Path) -> None:
    place = workplace(tmp_path, settings=DESTINATIONS)
    before = [put(place.directory, NOON - timedelta(days=40 - number)) for number in range(20)]
    night = Night(create=PreconditionError("the disk is full", hint="df -h"))
    run = night.run(place)
    assert night.order == ["create", "prove", "push /a", "push s3://b"]
    assert said(run)[0] == ("create", "failed")
    assert said(run)[-1] == ("prune", "skipped")
    assert run.exit_code == ExitCode.FAILED
    assert len(place.directory.all()) == len(before)


def test_a_backup_that_cannot_be_restored_is_a_failed_night(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    good = put(place.directory, NOON - timedelta(days=1))
    night = Night(rotten=OpsError("marker"))
    run = night.run(place)
    assert run.exit_code == ExitCode.FAILED
    assert "one row is missing" in (run.problem or "")
    assert "prune" not in night.order
    assert [one.good for one in place.directory.all()] == [True, False]
    assert place.directory.all()[0].id == good.id


def test_a_machine_that_cannot_read_its_backups_is_not_a_failed_night(tmp_path: Path) -> None:
    night = Night(prove=WrongKeyError("no private key is at hand"))
    run = night.run(workplace(tmp_path))
    assert said(run)[1] == ("restore verification", "skipped")
    assert run.exit_code == ExitCode.OK


def test_a_copy_that_fails_keeps_nothing_else_from_running(tmp_path: Path) -> None:
    place, night = workplace(tmp_path, settings=DESTINATIONS), Night(push=OpsError("no route to host"))
    run = night.run(place)
    assert night.order[-3:] == ["prune", "prune /a", "prune s3://b"]
    assert run.exit_code == ExitCode.PARTIAL
    assert run.problem == "push: no route to host; push: no route to host"


def test_a_bug_in_a_stage_is_a_failure_of_that_stage(tmp_path: Path) -> None:
    run = Night(prune=ZeroDivisionError("ours")).run(workplace(tmp_path))
    assert run.problem == "prune: unexpected ZeroDivisionError: ours"
    assert run.exit_code == ExitCode.PARTIAL


def test_who_works_there_is_waited_for_and_then_it_fails(tmp_path: Path) -> None:
    place, night = workplace(tmp_path), Night()
    with place.directory.lock():
        run = night.run(place)
    assert night.order == []
    assert run.exit_code == ExitCode.FAILED
    assert "works on these backups" in (run.problem or "")
    assert last_run(place) == run


def test_a_directory_that_cannot_be_used_is_told_like_any_failure(tmp_path: Path) -> None:
    with listener() as (address, asked):
        urls = {"MISTUDIO_HEARTBEAT_URL": f"http://{address}/h", "MISTUDIO_NOTIFY_URLS": f"json://{address}/m"}
        place = workplace(tmp_path, **urls)
        place.directory.root.rmdir()
        place.directory.root.write_text("a file where the disk should be")
        run = Night().run(place)
    assert run.exit_code == ExitCode.FAILED
    assert "cannot be written" in (run.problem or "")
    assert [path for path, _ in asked] == ["/h/fail", "/m"]


def test_sigterm_ends_it_and_is_remembered(tmp_path: Path) -> None:
    place, night = workplace(tmp_path), Night(prove=TerminatedError("terminated by SIGTERM"))
    with pytest.raises(TerminatedError):
        night.run(place)
    remembered = last_run(place)
    assert remembered is not None
    assert said(remembered) == [("create", "ok"), ("restore verification", "failed")]


def test_a_full_disk_cannot_keep_it_from_telling(tmp_path: Path) -> None:
    with listener() as (address, asked):
        place = workplace(tmp_path, MISTUDIO_HEARTBEAT_URL=f"http://{address}/h")
        run_file(place).mkdir()
        Night(create=OpsError("disk full")).run(place)
    assert [path for path, _ in asked] == ["/h/fail"]


def test_who_is_told_and_when(tmp_path: Path) -> None:
    """Of every failure, of the first success after one, and never of what goes on as it did."""
    secret = "hunter2-hunter2"
    with listener() as (address, asked):
        place = workplace(tmp_path, MISTUDIO_NOTIFY_URLS=f"json://{address}/{secret}")

        def night(**failures: Exception) -> int:
            before = len(asked)
            Night(**failures).run(place)
            return len(asked) - before

        assert [night(), night(), night(create=OpsError("one")), night(create=OpsError("two")), night(), night()] == [
            0, 0, 1, 1, 1, 0,
        ]  # fmt: skip
    bodies = [body.decode() for _, body in asked]
    assert "MiStudio backup of local FAILED" in bodies[0]
    assert "create: one" in bodies[0]
    assert "works again" in bodies[2]
    assert isinstance(place.reporter, RecordingReporter)
    assert f"json://{address}/{secret}" in place.reporter.hidden


def test_a_message_holds_no_secret_that_is_known(tmp_path: Path) -> None:
    with listener() as (address, asked):
        place = workplace(tmp_path, MISTUDIO_NOTIFY_URLS=f"json://{address}/x")
        reporter = DeferredReporter(RecordingReporter())
        reporter.hide("planted-password")
        stage = Stage("create", "failed", "psql: planted-password is wrong")
        run = ScheduledRun("local", NOON, NOON, (stage,))
        assert notify_outcome(replace(place, reporter=reporter), run, None, mask=reporter.mask)
    assert b"planted-password" not in asked[0][1]
    assert b"******** is wrong" in asked[0][1]


def test_a_message_that_is_not_taken_only_warns(tmp_path: Path) -> None:
    with listener(500) as (address, _):
        place = workplace(tmp_path, MISTUDIO_NOTIFY_URLS=f"json://{address}/x")
        Night(create=OpsError("one")).run(place)
    assert isinstance(place.reporter, RecordingReporter)
    assert any("was not taken" in one for one in place.reporter.warnings)


def test_wrong_notification_urls_are_found_by_day(tmp_path: Path) -> None:
    place = workplace(tmp_path, MISTUDIO_NOTIFY_URLS="json://127.0.0.1:9/a, planted-secret://token")
    with pytest.raises(UsageError, match="number 2 of 2 is no URL") as caught:
        require_notify(place)
    assert "token" not in str(caught.value)


def test_apprise_missing_is_found_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistudio_ops.drivers.messages.find_spec", lambda _: None)
    with pytest.raises(PreconditionError, match="apprise is not installed") as caught:
        require(["json://127.0.0.1:9/a"])
    assert caught.value.hint == "pip install 'mistudio[notify]'"


def test_nobody_listens() -> None:
    with pytest.raises(NotDeliveredError):
        send(["json://127.0.0.1:9/a"], "title", "body", good=False)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", ()),
        (" json://a/b ", ("json://a/b",)),
        ("json://a/b,mailto://c@d?to=e,f", ("json://a/b", "mailto://c@d?to=e,f")),
        ("json://a\njson://b, json://c,", ("json://a", "json://b", "json://c")),
    ],
)
def test_urls_in_a_variable(text: str, urls: tuple[str, ...]) -> None:
    assert split_urls(text) == urls


def test_the_deferred_reporter_says_nothing_until_it_must() -> None:
    inner = RecordingReporter()
    reporter = DeferredReporter(inner, clock=lambda: 1.0)
    steps: list[Callable[[], None]] = [
        lambda: reporter.note("a note"),
        lambda: reporter.warning("careful", hint="look"),
        lambda: reporter.output("a line"),
    ]
    with reporter.step("dump") as step:
        step.detail("3 rows")
    for say in steps:
        say()
    assert (inner.notes, inner.warnings, inner.outputs) == ([], [], [])
    with pytest.raises(ZeroDivisionError), reporter.step("count"):
        raise ZeroDivisionError
    reporter.error(ErrorReport("failed", "it failed"))
    assert inner.notes == ["ok      dump (0.0 s): 3 rows", "a note", "failed  count (0.0 s)"]
    assert inner.warnings == ["careful (look)"]
    assert inner.errors[0].message == "it failed"
    reporter.note("from now on")
    assert inner.notes[-1] == "from now on"


def test_how_a_run_looks(tmp_path: Path) -> None:
    run = Night(create=LockedError("deploy works here", hint="wait")).run(workplace(tmp_path))
    text = draw(run_result(run).blocks)
    assert "failed   create" in text
    assert "create: wait" in text
    assert "scheduled backup of local FAILED, 2026-11-23 12:00 UTC" in text
