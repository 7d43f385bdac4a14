"""Which backups stay, and why. Pure.

What counts is **days that have a good backup**, never how old a file is: a lab whose backups fail for a month loses
none of those it has. Days, ISO weeks and months are those of UTC, as in a backup's id, so that neither a journey nor
daylight saving moves a backup into another day. Within a period the backup that was made last stays, by sequence and
not by clock; and the periods that count are those in which backups were made last, by sequence too.

Clocks jump. Backups dated later than now are counted apart, with slots of their own, so they never push out others;
when it is our own clock that is behind, that is every backup, and all of them are counted as ever.

Copies made before a restore or a migration fill no slot (the database that they hold may be the one that was broken);
they stay ``pre_days`` days. Whatever the slots say, these stay: pinned ones, the newest good one, the newest good one
that was proven by a restore, and those that the system refuses to read, which proves nothing about them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mistudio_ops.domain.backup import Manifest, StoredBackup
from mistudio_ops.domain.backup_settings import BackupSettings

#: Clocks of one lab differ by this much without anything being wrong.
TOLERANCE = timedelta(hours=1)
SAFETY_KINDS = frozenset({"pre-restore", "pre-migrate"})


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How many days, weeks and months with a good backup are kept, and for how many days safety copies are.

    ``daily`` is at least 1: without it nothing ordinary would be kept but the newest.
    """

    daily: int = 7
    weekly: int = 4
    monthly: int = 3
    pre_days: int = 14

    @classmethod
    def of(cls, settings: BackupSettings) -> "RetentionPolicy":
        """Return what is configured."""
        return cls(settings.keep_daily, settings.keep_weekly, settings.keep_monthly, settings.keep_pre_days)


@dataclass(frozen=True, slots=True)
class Decision:
    """One backup stays or goes, with every reason for it."""

    backup: StoredBackup
    keep: bool
    reasons: tuple[str, ...]

    @property
    def id(self) -> str:
        """Return the backup's id."""
        return self.backup.id


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """A decision for every backup, oldest first.

    ``relies_on`` are the ids of those whose being good makes the removals right; whoever carries the plan out reads
    them first, newest first.
    """

    decisions: tuple[Decision, ...]
    relies_on: tuple[str, ...] = ()

    @property
    def keep(self) -> tuple[Decision, ...]:
        """Those that stay."""
        return tuple(one for one in self.decisions if one.keep)

    @property
    def remove(self) -> tuple[Decision, ...]:
        """Those that go."""
        return tuple(one for one in self.decisions if not one.keep)


def plan_prune(backups: Sequence[StoredBackup], policy: RetentionPolicy, now: datetime) -> PrunePlan:
    """Decide for every backup whether it stays, and say why."""
    ordered = sorted(backups, key=lambda one: (one.sequence, one.id))
    reasons = _reasons_to_keep(ordered, policy, now)
    good = [one for one in ordered if one.good]
    kept_days = {_day(manifest): one.id for one, manifest in _ordinary(good) if one.id in reasons}
    decisions = tuple(
        _decision(one, reasons.get(one.id, ()), good, list(kept_days.values()), policy) for one in ordered
    )
    return PrunePlan(decisions, _relies_on(decisions, good))


def newest_good(backups: Iterable[StoredBackup]) -> StoredBackup | None:
    """Return the good backup that was made last, whatever the clock said."""
    return max((one for one in backups if one.good), key=lambda one: (one.sequence, one.id), default=None)


def newest_verified(backups: Iterable[StoredBackup]) -> StoredBackup | None:
    """Return the newest good backup that was proven by a restore."""
    return newest_good(one for one in backups if one.marks.verified("restore") is not None)


def _reasons_to_keep(
    ordered: Sequence[StoredBackup], policy: RetentionPolicy, now: datetime
) -> dict[str, tuple[str, ...]]:
    reasons: dict[str, list[str]] = {}

    def because(backup: StoredBackup | None, reason: str) -> None:
        if backup is not None:
            reasons.setdefault(backup.id, []).append(reason)

    good = [one for one in ordered if one.good]
    because(newest_good(good), "newest good")
    because(newest_verified(good), "newest restore-verified")
    for one in ordered:
        if one.marks.pinned:
            because(one, f"pinned: {one.marks.pin_reason}" if one.marks.pin_reason else "pinned")
        if one.marks.damaged:
            because(one, "damaged marks count as a pin")
    for backup, reason in (*_safety_copies(good, policy, now), *_slots(good, policy, now)):
        because(backup, reason)
    return {backup_id: tuple(said) for backup_id, said in reasons.items()}


def _safety_copies(
    good: Sequence[StoredBackup], policy: RetentionPolicy, now: datetime
) -> Iterable[tuple[StoredBackup, str]]:
    for one in good:
        if one.manifest is None or one.manifest.kind not in SAFETY_KINDS:
            continue
        age = now - one.manifest.created
        if age < -TOLERANCE:
            yield one, f"{one.manifest.kind}, dated in the future"
        elif age < timedelta(days=policy.pre_days):
            yield one, f"{one.manifest.kind}, {_days_old(age)}"


def _slots(good: Sequence[StoredBackup], policy: RetentionPolicy, now: datetime) -> Iterable[tuple[StoredBackup, str]]:
    periods: tuple[tuple[str, int, Callable[[Manifest], str]], ...] = (
        ("daily", policy.daily, _day),
        ("weekly", policy.weekly, _week),
        ("monthly", policy.monthly, _month),
    )
    ordinary = list(_ordinary(good))
    past = [(one, manifest) for one, manifest in ordinary if manifest.created <= now + TOLERANCE]
    future = [(one, manifest) for one, manifest in ordinary if manifest.created > now + TOLERANCE]
    for pool, suffix in ((past, ""), (future, ", dated in the future")):
        for word, count, period_of in periods:
            for period, one in _newest_per_period(pool, period_of, count):
                yield one, f"{word} {period}{suffix}"


def _newest_per_period(
    pool: Sequence[tuple[StoredBackup, Manifest]], period_of: Callable[[Manifest], str], count: int
) -> list[tuple[str, StoredBackup]]:
    """Return the last backup of each of the ``count`` periods in which backups were made last; ``pool`` is in order."""
    last: dict[str, StoredBackup] = {}
    for one, manifest in reversed(pool):
        last.setdefault(period_of(manifest), one)
    return list(last.items())[:count]


def _decision(
    one: StoredBackup,
    reasons: tuple[str, ...],
    good: Sequence[StoredBackup],
    kept_ids: Sequence[str],
    policy: RetentionPolicy,
) -> Decision:
    if one.good:
        return Decision(one, bool(reasons), reasons or (_why_not(one, policy),))
    problem = one.problem or (one.marks.failure.reason if one.marks.failure else None) or "a verification failed"
    if reasons:
        return Decision(one, True, (*reasons, f"bad: {problem}"))
    if one.unreadable:
        return Decision(one, True, (f"it could not be read, and may be good: {problem}",))
    if one.manifest is None:
        return _without_manifest(one, kept_ids, policy, problem)
    if any(other.sequence > one.sequence for other in good):
        return Decision(one, False, (f"bad, and a newer one is good: {problem}",))
    return Decision(one, True, (f"bad, but no newer one is good: {problem}",))


def _without_manifest(one: StoredBackup, kept_ids: Sequence[str], policy: RetentionPolicy, problem: str) -> Decision:
    """Its place in the order is unknown, and it may be of a later release: it goes when its day would have gone."""
    later = sum(other > one.id for other in kept_ids)
    if later >= policy.daily:
        return Decision(one, False, (f"without a manifest, and older than {later} days with a good one: {problem}",))
    return Decision(one, True, (f"without a manifest, and perhaps all there is of its day: {problem}",))


def _why_not(one: StoredBackup, policy: RetentionPolicy) -> str:
    if one.manifest is not None and one.manifest.kind in SAFETY_KINDS:
        return f"{one.manifest.kind}, older than {policy.pre_days} days"
    return f"not the last of any of {policy.daily} days, {policy.weekly} weeks, {policy.monthly} months"


def _relies_on(decisions: Sequence[Decision], good: Sequence[StoredBackup]) -> tuple[str, ...]:
    """Return the newest good, the newest verified, and for each removal the kept good one that is next to it.

    The next newer one is what somebody would restore instead of the removed one. Reading every kept backup for every
    removal would prove no more about it: those further away do not replace it.
    """
    removed = [one.backup for one in decisions if not one.keep]
    if not removed:
        return ()
    kept = [one.backup for one in decisions if one.keep and one.backup.good]
    wanted = {one.id for one in (newest_good(good), newest_verified(good)) if one is not None}
    for gone in removed:
        successor = next((one for one in kept if _after(one, gone)), None)
        wanted |= {successor.id} if successor else set()
    return tuple(one.id for one in reversed(kept) if one.id in wanted)


def _after(one: StoredBackup, other: StoredBackup) -> bool:
    if other.manifest is None:
        return one.id > other.id
    return one.sequence > other.sequence


def _ordinary(good: Sequence[StoredBackup]) -> Iterable[tuple[StoredBackup, Manifest]]:
    for one in good:
        if one.manifest is not None and one.manifest.kind not in SAFETY_KINDS:
            yield one, one.manifest


def _days_old(age: timedelta) -> str:
    days = max(age.days, 0)
    return f"{days} day{'' if days == 1 else 's'} old"


def _day(manifest: Manifest) -> str:
    return f"{manifest.created.astimezone(UTC):%Y-%m-%d}"


def _week(manifest: Manifest) -> str:
    year, week, _ = manifest.created.astimezone(UTC).isocalendar()
    return f"{year}-W{week:02d}"


def _month(manifest: Manifest) -> str:
    return f"{manifest.created.astimezone(UTC):%Y-%m}"
