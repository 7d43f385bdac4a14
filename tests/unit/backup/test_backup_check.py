"""What ``backup check`` finds, says, and passes on."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mistudio_ops.domain.backup import FileEntry, StoredBackup, Verification
from mistudio_ops.domain.backup_check import BackupFacts, BackupReport, check_backups, nagios, span
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.check import Status
from mistudio_ops.domain.scheduled_run import ScheduledRun, Stage
from mistudio_ops.drivers.heartbeat import beat, failing
from mistudio_ops.operations.backup.check import check, check_and_tell, last_run, run_file
from mistudio_ops.presentation.backup_check import check_result, nagios_result
from mistudio_ops.presentation.plain import draw
from mistudio_ops.presentation.recording import RecordingReporter
from tests.support.backups import NOON, garble, put, restored, stored, workplace
from tests.support.listener import listener

HOUR = timedelta(hours=1)


def report(*backups: StoredBackup, free: int | None = 10**12, **more: str) -> BackupReport:
    facts = BackupFacts("local", "/b", backups, NOON, 26 * HOUR, free, **more)
    return check_backups(facts)


def finding(one: BackupReport, name: str) -> tuple[Status, str]:
    found = next(finding for finding in one.findings if finding.name == name)
    assert found.status is Status.OK or found.hint, "what is wrong comes with what to do"
    return found.status, found.evidence


def sized(sequence: int, size: int, age: timedelta = HOUR) -> StoredBackup:
    one = stored(sequence, NOON - age, marks=restored(NOON - HOUR))
    assert one.manifest
    entry = FileEntry("database.dump.zst", "database", size // 5, "", size, "")
    return replace(one, manifest=replace(one.manifest, files=(entry,)))


def test_all_is_well() -> None:
    good = report(sized(1, 1000, 49 * HOUR), sized(2, 1100, 25 * HOUR), sized(3, 1050))
    assert good.ok
    assert not good.troubles
    assert nagios(good)[0] == 0
    assert nagios(good)[1].startswith("MISTUDIO BACKUP OK - local: age: the newest good one is 1.0 h old (")
    assert nagios(good)[1].endswith(
        "| age=3600s;;93600;0 size=210B;;;0 verified_age=3600s;;691200;0 good=3;;;0 bad=0;;;0 free=1000000000000B;;;0"
    )


def test_none_at_all() -> None:
    assert finding(report(), "age") == (Status.FAIL, "there is no good backup in /b")
    only_bad = report(stored(1, problem="cut"))
    assert finding(only_bad, "age") == (Status.FAIL, "there is no good backup in /b; 1 are bad")
    assert nagios(only_bad)[0] == 2
    assert "age=" not in nagios(only_bad)[1]


@pytest.mark.parametrize(("age", "status"), [(25.9, Status.OK), (26.1, Status.FAIL), (-0.5, Status.OK)])
def test_age(age: float, status: Status) -> None:
    assert finding(report(stored(1, NOON - age * HOUR)), "age")[0] is status


def test_a_newest_one_from_the_future_has_no_age() -> None:
    """Its age would look fine for years, while nothing is backed up."""
    ahead = report(stored(1), stored(2, NOON + 9000 * HOUR))
    status, evidence = finding(ahead, "age")
    assert status is Status.FAIL
    assert "in the future" in evidence
    mended = report(stored(1, NOON + 9000 * HOUR), stored(2))
    assert finding(mended, "age")[0] is Status.OK
    assert finding(mended, "clock")[0] is Status.WARN


@pytest.mark.parametrize(
    ("sizes", "status"),
    [
        ((100,), Status.OK),
        ((100, 10), Status.OK),
        ((100, 100, 51), Status.OK),
        ((100, 100, 49), Status.FAIL),
        ((10_000, 100, 100, 100, 60), Status.OK),
        ((1, 100, 100, 100, 40), Status.FAIL),
    ],
)
def test_size_against_the_median_of_those_before(sizes: tuple[int, ...], status: Status) -> None:
    backups = [sized(number, size, (99 - number) * HOUR) for number, size in enumerate(sizes, 1)]
    assert finding(report(*backups), "size")[0] is status


def test_bad_ones_do_not_count_for_the_median() -> None:
    small = [replace(sized(number, 1), problem="cut") for number in range(3, 9)]
    assert finding(report(sized(1, 100), sized(2, 100), *small, sized(9, 45)), "size")[0] is Status.FAIL


@pytest.mark.parametrize(
    ("proven", "made", "status"),
    [
        (7.9, 30, Status.OK),
        (8.1, 30, Status.FAIL),
        (None, 30, Status.FAIL),
        (None, 3, Status.WARN),
        (-30, 30, Status.FAIL),
    ],
)
def test_proof_by_a_restore(proven: float | None, made: float, status: Status) -> None:
    marks = None if proven is None else restored(NOON - timedelta(days=proven))
    assert finding(report(stored(1, NOON - timedelta(days=made), marks=marks), stored(2)), "verified")[0] is status


def test_bad_ones_and_a_failed_run_are_warnings() -> None:
    one = report(stored(1, problem="cut", created=NOON - HOUR), sized(2, 9), last_run_failed="create: disk full")
    assert one.ok
    assert [trouble.name for trouble in one.troubles] == ["bad", "schedule"]
    code, line = nagios(one)
    assert code == 1
    assert "1 of 2 are bad, the last of them" in line
    assert "create: disk full" in line


@pytest.mark.parametrize(("free", "status"), [(100, Status.FAIL), (500, Status.WARN), (5000, Status.OK)])
def test_room_for_the_next_one(free: int, status: Status) -> None:
    assert finding(report(sized(1, 1000), free=free), "room")[0] is status


def test_nagios_is_one_line_whatever_it_says() -> None:
    one = report(stored(1, problem="a|b\nc"), sized(2, 9))
    assert nagios(one)[1].count("|") == 1
    assert "\n" not in nagios(one)[1]


@pytest.mark.parametrize(("hours", "text"), [(0.5, "30 min"), (1, "1.0 h"), (47.9, "47.9 h"), (60, "2.5 days")])
def test_spans(hours: float, text: str) -> None:
    assert span(hours * HOUR) == text


def test_it_looks_at_a_disk_and_changes_nothing(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    made = put(place.directory, NOON - HOUR)
    place.directory.record(made.id, Verification("restore", NOON - HOUR, ok=True))
    before = sorted(tmp_path.rglob("*"))
    seen = check(place)
    assert seen.ok
    assert seen.figures.newest_id == made.id
    assert sorted(tmp_path.rglob("*")) == before
    (place.directory.path(made.id) / "database.dump.zst").unlink()
    assert not check(place).ok
    garble(place.directory, put(place.directory).id)  # what only reading finds is verification's business
    assert finding(check(place), "age")[0] is Status.OK


def test_without_a_directory_it_says_so(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    place.directory.root.rmdir()
    assert finding(check(place), "age")[0] is Status.FAIL


def test_how_it_looks(tmp_path: Path) -> None:
    text = draw(check_result(report(stored(1, NOON - 30 * HOUR))).blocks)
    assert "fail    age" in text
    assert "the backups of local need attention (/b)" in text
    assert draw(nagios_result(report()).blocks).startswith("MISTUDIO BACKUP CRITICAL")


def test_the_textfile(tmp_path: Path) -> None:
    path = tmp_path / "mistudio.prom"
    place = workplace(tmp_path, settings=BackupSettings(textfile=path))
    made = put(place.directory, NOON - HOUR)
    place.directory.record(made.id, Verification("restore", NOON, ok=True))
    run = ScheduledRun("local", NOON, NOON, (Stage("push", "failed", "no route"),), made.id)
    run_file(place).write_text(run.render())
    assert last_run(place) == run
    check_and_tell(place)
    found = {one.name: one for family in text_string_to_metric_families(path.read_text()) for one in family.samples}
    assert made.manifest
    assert {name.removeprefix("mistudio_backup_"): sample.value for name, sample in found.items()} | {
        "free_bytes": 0
    } == {
        "good_count": 1, "bad_count": 0, "last_success_timestamp_seconds": (NOON - HOUR).timestamp(),
        "age_seconds": 3600, "size_bytes": made.manifest.size, "last_restore_verification_timestamp_seconds":
        NOON.timestamp(), "check_ok": 1, "last_run_exit_code": 3, "last_run_timestamp_seconds": NOON.timestamp(),
        "free_bytes": 0,
    }  # fmt: skip
    assert all(sample.labels == {"environment": "local"} for sample in found.values())
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.glob("mistudio.prom*")] == ["mistudio.prom"]


def test_a_textfile_that_cannot_be_written_only_warns(tmp_path: Path) -> None:
    place = workplace(tmp_path, settings=BackupSettings(textfile=tmp_path / "nowhere" / "x.prom"))
    check_and_tell(place)
    assert isinstance(place.reporter, RecordingReporter)
    assert any("x.prom cannot be written" in said for said in place.reporter.warnings)


def test_the_heartbeat(tmp_path: Path) -> None:
    with listener() as (address, asked):
        place = workplace(tmp_path, MISTUDIO_HEARTBEAT_URL=f"http://{address}/abc?x=1")
        check_and_tell(place)
        made = put(place.directory)
        place.directory.record(made.id, Verification("restore", NOON, ok=True))
        check_and_tell(place)
    assert [path for path, _ in asked] == ["/abc/fail?x=1", "/abc?x=1"]
    assert isinstance(place.reporter, RecordingReporter)
    assert not place.reporter.warnings
    assert f"http://{address}/abc?x=1" in place.reporter.hidden


def test_a_heartbeat_that_fails_only_warns_and_names_no_secret(tmp_path: Path) -> None:
    with listener(500) as (address, _):
        place = workplace(tmp_path, MISTUDIO_HEARTBEAT_URL=f"http://{address}/planted-secret")
        check_and_tell(place)
    check_and_tell(place)  # nobody listens any more
    assert isinstance(place.reporter, RecordingReporter)
    assert "it answered 500" in place.reporter.warnings[0]
    assert "ConnectError" in place.reporter.warnings[1]
    assert "planted-secret" not in json.dumps(place.reporter.warnings)


@pytest.mark.parametrize("url", ["http://", "no url", "http://127.0.0.1:99999999/", "http://[::1/x"])
def test_a_heartbeat_that_is_no_url(url: str) -> None:
    assert beat(url, ok=True)
    assert beat(url, ok=False)


def test_where_a_failure_is_told() -> None:
    assert failing("https://h/ping/uuid/") == "https://h/ping/uuid/fail"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"environment": 1}', '{"stages": [{"nope": 1}]}'])
def test_a_garbled_record_of_the_last_run_is_none(tmp_path: Path, text: str) -> None:
    place = workplace(tmp_path)
    run_file(place).write_text(text)
    assert last_run(place) is None
