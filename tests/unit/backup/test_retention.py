"""Retention, as tables: which backups stay, and what is said about each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import Marks, StoredBackup, Verification
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.retention import PrunePlan, RetentionPolicy, plan_prune
from tests.support.backups import NOON, failed, restored, stored

POLICY = RetentionPolicy(daily=2, weekly=0, monthly=0, pre_days=14)
GOLDEN = Path(__file__).with_name("golden")


def days_ago(days: float) -> datetime:
    return NOON - timedelta(days=days)


def said(plan: PrunePlan) -> dict[int, tuple[bool, tuple[str, ...]]]:
    return {one.backup.sequence: (one.keep, one.reasons) for one in plan.decisions}


def kept(*backups: StoredBackup, policy: RetentionPolicy = POLICY, now: datetime = NOON) -> set[int]:
    return {one.backup.sequence for one in plan_prune(backups, policy, now).keep}


def test_without_backups_there_is_nothing_to_decide() -> None:
    assert plan_prune([], POLICY, NOON) == PrunePlan(())


def test_days_count_that_have_a_good_backup_however_old_they_are() -> None:
    old = [stored(number, days_ago(3000 - 100 * number)) for number in range(1, 4)]
    assert kept(*old) == {2, 3}
    assert kept(*old[:2]) == {1, 2}


def test_failed_backups_take_no_place() -> None:
    good = [stored(1, days_ago(9)), stored(2, days_ago(8))]
    bad = [stored(number, days_ago(8 - number), problem="cut") for number in range(3, 8)]
    assert kept(*good, *bad) == {1, 2, 3, 4, 5, 6, 7}, "no newer one is good: the bad ones may be worth something"
    newer = stored(9, days_ago(0.5))
    assert kept(*good, *bad, newer) == {2, 9}


def test_the_last_of_a_day_by_sequence_stays() -> None:
    same_day = [stored(1, NOON), stored(2, NOON + timedelta(minutes=9)), stored(3, NOON - timedelta(hours=3))]
    plan = plan_prune(same_day, POLICY, NOON)
    assert said(plan)[3] == (True, ("newest good", "daily 2026-11-23"))
    assert [one.backup.sequence for one in plan.remove] == [1, 2]


def test_days_are_those_of_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    early, late = datetime(2026, 11, 23, 8, 0, tzinfo=tokyo), datetime(2026, 11, 23, 10, 0, tzinfo=tokyo)
    plan = plan_prune([stored(1, early), stored(2, late)], POLICY, NOON)
    assert [one.reasons[-1] for one in plan.keep] == ["daily 2026-11-22", "daily 2026-11-23"]


def test_weeks_are_iso_weeks_also_at_new_year() -> None:
    policy = RetentionPolicy(daily=1, weekly=2, monthly=2)
    backups = [
        stored(1, datetime(2026, 12, 27, tzinfo=UTC)),
        stored(2, datetime(2026, 12, 31, tzinfo=UTC)),
        stored(3, datetime(2027, 1, 3, tzinfo=UTC)),
    ]
    plan = plan_prune(backups, policy, datetime(2027, 1, 4, tzinfo=UTC))
    assert said(plan) == {
        1: (True, ("weekly 2026-W52",)),
        2: (True, ("monthly 2026-12",)),
        3: (True, ("newest good", "daily 2027-01-03", "weekly 2026-W53", "monthly 2027-01")),
    }


def test_the_newest_good_and_the_newest_verified_stay_whatever_the_clock_says() -> None:
    verified = stored(1, days_ago(90), marks=restored())
    others = [stored(number, days_ago(40 - number)) for number in range(2, 6)]
    newest = stored(9, days_ago(4000))
    plan = plan_prune([verified, *others, newest], RetentionPolicy(daily=1, weekly=0, monthly=0), NOON)
    assert said(plan)[1] == (True, ("newest restore-verified",))
    assert said(plan)[9] == (True, ("newest good", "daily 2015-12-11"))
    assert {one.backup.sequence for one in plan.remove} == {2, 3, 4, 5}


def test_a_verified_one_that_turned_bad_is_not_the_newest_verified() -> None:
    turned = Marks(
        verifications=(Verification("restore", NOON, ok=True), Verification("hash", NOON, ok=False, reason="rot"))
    )
    older = stored(1, days_ago(20), marks=restored())
    assert kept(older, stored(2, days_ago(10), marks=turned), stored(3), stored(4, days_ago(1))) == {1, 3, 4}


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        (Marks(pinned=True), "pinned"),
        (Marks(pinned=True, pin_reason="before the paper"), "pinned: before the paper"),
        (Marks(damaged=True), "damaged marks count as a pin"),
    ],
)
@pytest.mark.parametrize("problem", [None, "cut"])
def test_a_pin_holds_good_and_bad(marks: Marks, reason: str, problem: str | None) -> None:
    pinned = stored(1, days_ago(99), marks=marks, problem=problem)
    plan = plan_prune([pinned, *(stored(n, days_ago(10 - n)) for n in range(2, 9))], POLICY, NOON)
    assert said(plan)[1] == (True, (reason, *(["bad: cut"] if problem else [])))


def test_safety_copies_stay_their_days_and_fill_no_slot() -> None:
    backups = [
        stored(1, days_ago(20), "pre-migrate"),
        stored(2, days_ago(13.9), "pre-restore"),
        stored(3, days_ago(1)),
        stored(4, days_ago(0.4)),
        stored(5, days_ago(0.1), "pre-restore"),
    ]
    assert said(plan_prune(backups, POLICY, NOON)) == {
        1: (False, ("pre-migrate, older than 14 days",)),
        2: (True, ("pre-restore, 13 days old",)),
        3: (True, ("daily 2026-11-22",)),
        4: (True, ("daily 2026-11-23",)),
        5: (True, ("newest good", "pre-restore, 0 days old")),
    }


def test_an_old_safety_copy_that_is_all_there_is_stays() -> None:
    assert kept(stored(1, days_ago(400), "pre-restore")) == {1}


def test_backups_from_the_future_starve_nobody() -> None:
    real = [stored(number, days_ago(10 - number)) for number in range(1, 6)]
    ahead = [stored(number, NOON + timedelta(days=1000 + number)) for number in range(6, 12)]
    after = stored(12, days_ago(0.1))
    plan = plan_prune([*real, *ahead, after], POLICY, NOON)
    assert {one.backup.sequence for one in plan.keep} == {5, 10, 11, 12}
    assert said(plan)[11] == (True, ("daily 2029-08-30, dated in the future",))


def test_a_clock_that_is_years_behind_removes_what_it_always_did() -> None:
    real = [stored(number, days_ago(10 - number)) for number in range(1, 6)]
    assert kept(*real, now=datetime(1970, 1, 1, tzinfo=UTC)) == {4, 5}


def test_a_bad_one_goes_only_when_a_newer_one_is_good() -> None:
    bad = stored(2, days_ago(1), marks=failed(reason="its sha256 is another"))
    assert said(plan_prune([stored(1, days_ago(2)), bad], POLICY, NOON))[2] == (
        True,
        ("bad, but no newer one is good: its sha256 is another",),
    )
    assert said(plan_prune([bad, stored(3)], POLICY, NOON))[2] == (
        False,
        ("bad, and a newer one is good: its sha256 is another",),
    )


def test_one_without_a_manifest_stays_until_its_day_would_have_gone() -> None:
    lost = StoredBackup("20261120T030000Z-abcd", None, problem="its manifest is damaged: cut")
    later = [stored(1, datetime(2026, 11, 21, tzinfo=UTC)), stored(2, datetime(2026, 11, 22, tzinfo=UTC))]
    assert said(plan_prune([lost], POLICY, NOON))[0][0]
    keep, reasons = said(plan_prune([lost, later[0]], POLICY, NOON))[0]
    assert (keep, reasons) == (
        True,
        ("without a manifest, and perhaps all there is of its day: its manifest is damaged: cut",),
    )
    keep, reasons = said(plan_prune([lost, *later], POLICY, NOON))[0]
    assert (keep, reasons) == (
        False,
        ("without a manifest, and older than 2 days with a good one: its manifest is damaged: cut",),
    )


def test_one_that_the_system_refuses_to_read_stays() -> None:
    """Another account's prune, or a disk with a loose cable, must not take good ones for bad ones."""
    refused = replace(stored(1, days_ago(40), problem="Permission denied"), unreadable=True)
    without = StoredBackup("20200101T030000Z-abcd", None, problem="Input/output error", unreadable=True)
    plan = plan_prune([refused, without, *(stored(n, days_ago(9 - n)) for n in range(2, 8))], POLICY, NOON)
    assert said(plan)[1] == (True, ("it could not be read, and may be good: Permission denied",))
    assert said(plan)[0] == (True, ("it could not be read, and may be good: Input/output error",))


def test_a_removal_relies_on_the_newest_the_verified_and_the_next_newer_one() -> None:
    backups = [
        stored(1, days_ago(30), marks=restored()),
        stored(2, days_ago(9)),
        stored(3, days_ago(8), marks=Marks(pinned=True)),
        stored(4, days_ago(2)),
        stored(5, days_ago(1)),
        stored(6),
    ]
    plan = plan_prune(backups, RetentionPolicy(daily=3, weekly=0, monthly=0), NOON)
    sequence = {one.id: one.backup.sequence for one in plan.decisions}
    assert [one.backup.sequence for one in plan.remove] == [2]
    assert [sequence[backup_id] for backup_id in plan.relies_on] == [6, 3, 1]


def test_without_removals_nothing_has_to_be_read() -> None:
    assert plan_prune([stored(1), stored(2, days_ago(1))], POLICY, NOON).relies_on == ()


def test_the_policy_is_what_is_configured() -> None:
    settings = BackupSettings(keep_daily=9, keep_weekly=8, keep_monthly=7, keep_pre_days=6)
    assert RetentionPolicy.of(settings) == RetentionPolicy(9, 8, 7, 6)


@pytest.mark.parametrize("name", ["a_year_daily", "a_month_with_failures", "six_times_a_day"])
def test_golden_plans(name: str) -> None:
    """Whole histories, pruned after every backup with the default policy; what is left, with its reasons."""
    assert _history(name) == (GOLDEN / f"retention_{name}.txt").read_text()


def _history(name: str) -> str:
    start = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
    days = {"a_year_daily": 365, "a_month_with_failures": 340, "six_times_a_day": 12}[name]
    hours = range(0, days * 24, 4 if name == "six_times_a_day" else 24)
    present: list[StoredBackup] = []
    now = start
    for sequence, hour in enumerate(hours, 1):
        now = start + timedelta(hours=hour)
        failing = name == "a_month_with_failures" and now.month == 12
        marks = restored(now) if sequence % 7 == 0 and not failing else None
        present.append(stored(sequence, now, marks=marks, problem="cut" if failing else None))
        present = [one.backup for one in plan_prune(present, RetentionPolicy(), now).keep]
    lines = [f"{one.id}  {', '.join(one.reasons)}" for one in plan_prune(present, RetentionPolicy(), now).decisions]
    return "\n".join(lines) + "\n"
