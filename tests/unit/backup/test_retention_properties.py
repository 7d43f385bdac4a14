"""No sequence of backups, failures, damage, verifications, pins, clock jumps and prunes removes what must stay."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mistudio_ops.domain.backup import Kind, Marks, StoredBackup, Verification
from mistudio_ops.domain.retention import (
    SAFETY_KINDS,
    TOLERANCE,
    RetentionPolicy,
    newest_good,
    newest_verified,
    plan_prune,
)
from tests.support.backups import restored, stored

KINDS: tuple[Kind, ...] = ("manual", "scheduled", "scheduled", "pre-restore", "pre-migrate")
POLICIES = st.builds(
    RetentionPolicy,
    daily=st.integers(1, 4),
    weekly=st.integers(0, 2),
    monthly=st.integers(0, 2),
    pre_days=st.integers(0, 20),
)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Lab(RuleBasedStateMachine):
    """A lab over the years: ``present`` is what its backup directory holds, in the order of making."""

    @initialize(policy=POLICIES)
    def open(self, policy: RetentionPolicy) -> None:
        self.policy = policy
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.sequence = 0
        self.present: list[StoredBackup] = []

    @rule(hours=st.integers(1, 60))
    def time_passes(self, hours: int) -> None:
        self._set_clock(timedelta(hours=hours))

    @rule(days=st.integers(-4000, 4000))
    def the_clock_jumps(self, days: int) -> None:
        self._set_clock(timedelta(days=days))

    @rule(years=st.sampled_from([-56, -10, 10, 70, 5000]))
    def the_clock_jumps_far(self, years: int) -> None:
        self._set_clock(timedelta(days=365 * years))

    @rule(kind=st.sampled_from(KINDS))
    def a_backup_is_made(self, kind: Kind) -> None:
        self._add(stored(self._next(), self.now, kind))

    @rule(nights=st.integers(1, 30), failing=st.booleans(), proven=st.booleans())
    def nights_pass(self, nights: int, failing: bool, proven: bool) -> None:
        for night in range(nights):
            self._set_clock(DAY)
            marks = restored(self.now) if proven and night == 0 else None
            self._add(stored(self._next(), self.now, marks=marks, problem="cut" if failing else None))
            self.it_is_pruned()

    @rule(data=st.data())
    def one_rots(self, data: st.DataObject) -> None:
        self._change(data, lambda one: StoredBackup(one.id, one.manifest, one.marks, "a bit is another"))

    @rule(data=st.data())
    def a_manifest_rots(self, data: st.DataObject) -> None:
        self._change(data, lambda one: StoredBackup(one.id, None, one.marks, "its manifest is damaged"))

    @rule(data=st.data(), ok=st.booleans(), level=st.sampled_from(["hash", "read", "restore"]))
    def one_is_verified(self, data: st.DataObject, ok: bool, level: str) -> None:
        done = Verification(level, self.now, ok, None if ok else "wrong")  # type: ignore[arg-type]
        self._change(
            data, lambda one: StoredBackup(one.id, one.manifest, one.marks.with_verification(done), one.problem)
        )

    @rule(data=st.data(), pinned=st.booleans())
    def one_is_pinned_or_not(self, data: st.DataObject, pinned: bool) -> None:
        def mark(one: StoredBackup) -> StoredBackup:
            marks = Marks(pinned, None, one.marks.verifications, one.marks.damaged)
            return StoredBackup(one.id, one.manifest, marks, one.problem)

        self._change(data, mark)

    @rule(data=st.data())
    def marks_are_garbled(self, data: st.DataObject) -> None:
        self._change(data, lambda one: StoredBackup(one.id, one.manifest, Marks.parse(b"{"), one.problem))

    @rule(policy=POLICIES)
    def the_policy_changes(self, policy: RetentionPolicy) -> None:
        self.policy = policy

    @rule()
    def it_is_pruned(self) -> None:
        before = list(self.present)
        plan = plan_prune(before, self.policy, self.now)
        assert [one.backup for one in plan.decisions] == sorted(before, key=lambda one: (one.sequence, one.id))
        assert all(one.reasons and all(one.reasons) for one in plan.decisions)
        self.present = [one.backup for one in plan.keep]
        self._nothing_precious_is_gone(before)
        self._it_relies_on_good_ones(before)
        assert not plan_prune(self.present, self.policy, self.now).remove, "a second prune right away removes nothing"

    @invariant()
    def ids_are_unique(self) -> None:
        if hasattr(self, "present"):
            assert len({one.id for one in self.present}) == len(self.present)

    def _nothing_precious_is_gone(self, before: list[StoredBackup]) -> None:
        left = {one.id for one in self.present}
        for precious in (newest_good(before), newest_verified(before)):
            assert precious is None or precious.id in left
        good_before = [one for one in before if one.good]
        for one in before:
            if one.marks.pinned or one.marks.damaged or (one.good and self._recent_safety_copy(one)):
                assert one.id in left
            if not one.good and one.manifest is not None and not any(g.sequence > one.sequence for g in good_before):
                assert one.id in left, "it may be the best that there is"
        for future in (False, True):
            days, days_left = self._days(before, future), self._days(self.present, future)
            assert len(days_left) >= min(len(days), self.policy.daily)
            assert days[-1:] == days_left[-1:], "the day in which a backup was made last"

    def _days(self, backups: list[StoredBackup], future: bool) -> list[date]:
        """Return the days with a good ordinary backup, in the order in which the last of each was made."""
        days: dict[date, int] = {}
        for one in backups:
            if one.good and one.manifest and one.manifest.kind not in SAFETY_KINDS:
                created = one.manifest.created
                if (created > self.now + TOLERANCE) is future:
                    days[created.date()] = max(one.sequence, days.get(created.date(), 0))
        return sorted(days, key=lambda day: days[day])

    def _it_relies_on_good_ones(self, before: list[StoredBackup]) -> None:
        plan = plan_prune(before, self.policy, self.now)
        good = {one.id for one in self.present if one.good}
        assert set(plan.relies_on) <= good
        if plan.remove and (newest := newest_good(before)):
            assert plan.relies_on[0] == newest.id

    def _recent_safety_copy(self, one: StoredBackup) -> bool:
        assert one.manifest
        age = self.now - one.manifest.created
        return one.manifest.kind in SAFETY_KINDS and timedelta(0) <= age < self.policy.pre_days * DAY

    def _set_clock(self, step: timedelta) -> None:
        self.now += max(min(step, LATEST - self.now), EARLIEST - self.now)

    def _next(self) -> int:
        """As ``BackupDirectory.next_sequence``, but ids stay apart where a manifest (and its number) is lost."""
        self.sequence += 1
        return self.sequence

    def _add(self, one: StoredBackup) -> None:
        self.present.append(one)

    def _change(self, data: st.DataObject, change) -> None:  # type: ignore[no-untyped-def]
        if self.present:
            index = data.draw(st.integers(0, len(self.present) - 1))
            self.present[index] = change(self.present[index])


Lab.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestLab = Lab.TestCase
