"""Are the backups as they should be? Findings about age, size, proof and room. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.domain.check import Finding, Status
from mistudio_ops.domain.quantities import human_size
from mistudio_ops.domain.retention import TOLERANCE, newest_good

#: A week between restore verifications, and a day for the one that is late.
VERIFIED_WITHIN = timedelta(days=8)
#: A dump that suddenly has under half the usual size has lost something.
SMALLEST_PART = 0.5
#: With how many earlier good ones a size is compared, and how many it takes.
COMPARED, COMPARABLE = 14, 2
#: The next backup needs what the newest has, and a little more; with room for few more of them it is time to act.
GROWTH = 1.2
NEARLY_FULL = 3


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What was looked at. ``last_run_failed`` says what the last scheduled run failed with, None if it did not.

    ``notify_problem`` says why nobody would be told of a failure, None if somebody would or nobody wants to be.
    """

    environment: str
    directory: str
    backups: tuple[StoredBackup, ...]
    now: datetime
    max_age: timedelta
    free_bytes: int | None = None
    last_run_failed: str | None = None
    notify_problem: str | None = None


@dataclass(frozen=True, slots=True)
class BackupFinding:
    """One check by name, with what it saw and what to do about it."""

    name: str
    status: Status
    evidence: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class BackupFigures:
    """Numbers for monitoring; None where there is nothing to count. Ages in seconds, sizes in bytes."""

    good: int
    bad: int
    newest_id: str | None = None
    newest_created: datetime | None = None
    age: float | None = None
    size: int | None = None
    duration: float | None = None
    restore_verified: datetime | None = None
    verified_age: float | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Every finding, and the figures behind them. ``max_age`` and ``max_verified_age`` are in seconds."""

    environment: str
    directory: str
    findings: tuple[BackupFinding, ...]
    figures: BackupFigures
    max_age: float
    max_verified_age: float = VERIFIED_WITHIN.total_seconds()

    @property
    def ok(self) -> bool:
        """True unless a check fails; warnings are no failures."""
        return all(one.status is not Status.FAIL for one in self.findings)

    @property
    def troubles(self) -> tuple[BackupFinding, ...]:
        """What fails, then what warns."""
        order = (Status.FAIL, Status.WARN)
        return tuple(one for status in order for one in self.findings if one.status is status)


def check_backups(facts: BackupFacts) -> BackupReport:
    """Look at everything, and say what is wrong."""
    good = sorted((one for one in facts.backups if one.good), key=lambda one: (one.sequence, one.id))
    newest = newest_good(good)
    checks = {
        "age": _age(facts, newest),
        "size": _size(good),
        "verified": _verified(facts, good),
        "bad": _bad(facts),
        "clock": _clock(facts),
        "room": _room(facts, newest),
        "schedule": _schedule(facts),
        "notify": _notify(facts),
    }
    findings = tuple(BackupFinding(name, one.status, one.evidence, one.hint) for name, one in checks.items() if one)
    return BackupReport(
        facts.environment, facts.directory, findings, _figures(facts, good), facts.max_age.total_seconds()
    )


def nagios(report: BackupReport) -> tuple[int, str]:
    """Return exit code and the one line of a Nagios plugin: 0 OK, 1 WARNING, 2 CRITICAL."""
    code, word = (2, "CRITICAL") if not report.ok else (1, "WARNING") if report.troubles else (0, "OK")
    said = "; ".join(f"{one.name}: {one.evidence}" for one in report.troubles or report.findings[:1])
    text = " ".join(f"MISTUDIO BACKUP {word} - {report.environment}: {said}".split()).replace("|", "/")
    return code, f"{text} | {_perfdata(report)}"


def _age(facts: BackupFacts, newest: StoredBackup | None) -> Finding:
    if newest is None or newest.manifest is None:
        bad = f"; {len(facts.backups)} are bad" if facts.backups else ""
        return Finding.bad(f"there is no good backup in {facts.directory}{bad}", "mistudio-ops backup")
    age = facts.now - newest.manifest.created
    if age < -TOLERANCE:
        return Finding.bad(
            f"the newest good one is dated {newest.manifest.created:%Y-%m-%d %H:%M} UTC, in the future: "
            "how old it is cannot be known",
            "set the clock (timedatectl), then mistudio-ops backup",
        )
    text = f"the newest good one is {span(age)} old ({newest.id})"
    if age > facts.max_age:
        return Finding.bad(
            f"{text}; {span(facts.max_age)} are allowed",
            "mistudio-ops backup makes one now, and mistudio-ops backup schedule show says why none was made",
        )
    return Finding.good(text)


def _size(good: Sequence[StoredBackup]) -> Finding | None:
    sizes = [size_of(one) for one in good if one.manifest is not None]
    if not sizes:
        return None
    earlier = sizes[:-1][-COMPARED:]
    if len(earlier) < COMPARABLE:
        return Finding.good(f"the dump has {human_size(sizes[-1])}; too few earlier ones to compare with")
    usual = median(earlier)
    text = f"the dump has {human_size(sizes[-1])}, where {human_size(usual)} is usual"
    if sizes[-1] < SMALLEST_PART * usual:
        return Finding.bad(
            f"the newest good one has {text}: under half",
            "was data deleted? mistudio-ops backup list shows rows; pin an earlier one before it goes: "
            "mistudio-ops backup pin ID",
        )
    return Finding.good(text)


def _verified(facts: BackupFacts, good: Sequence[StoredBackup]) -> Finding | None:
    if not good:
        return None
    last = _last_proof(facts, good)
    hint = "mistudio-ops backup verify latest --level restore"
    if last is not None:
        age = facts.now - last
        text = f"last proven by a restore {span(age)} ago"
        return Finding.good(text) if age <= VERIFIED_WITHIN else Finding.bad(text, hint)
    oldest = min(one.manifest.created for one in good if one.manifest is not None)
    if timedelta(0) <= facts.now - oldest <= VERIFIED_WITHIN:
        return Finding.poor("none was proven by a restore yet", hint)
    return Finding.bad("none was ever proven by a restore", hint)


def _bad(facts: BackupFacts) -> Finding:
    bad = [one for one in facts.backups if not one.good]
    if not bad:
        return Finding.good("none is bad")
    newest = bad[-1]
    failure = newest.marks.failure
    problem = newest.problem or (failure.reason if failure else None) or "a verification failed"
    return Finding.poor(
        f"{len(bad)} of {len(facts.backups)} are bad, the last of them {newest.id}: {problem}",
        "mistudio-ops backup list names them; is the disk failing?",
    )


def _clock(facts: BackupFacts) -> Finding | None:
    ahead = [one for one in facts.backups if one.manifest and one.manifest.created > facts.now + TOLERANCE]
    if not ahead:
        return None
    return Finding.poor(
        f"{len(ahead)} are dated in the future, the last of them {ahead[-1].id}: the clock was, or is, wrong",
        "timedatectl shows whether it is set by the network",
    )


def _room(facts: BackupFacts, newest: StoredBackup | None) -> Finding | None:
    if facts.free_bytes is None or newest is None or newest.manifest is None:
        return None
    needed = newest.manifest.size * GROWTH
    text = f"{human_size(facts.free_bytes)} are free, and the next one needs about {human_size(needed)}"
    hint = f"mistudio-ops backup prune --dry-run shows what could go; df -h {facts.directory}"
    if facts.free_bytes < needed:
        return Finding.bad(text, hint)
    return Finding.poor(text, hint) if facts.free_bytes < NEARLY_FULL * needed else Finding.good(text)


def _schedule(facts: BackupFacts) -> Finding | None:
    if facts.last_run_failed is None:
        return None
    return Finding.poor(f"the last scheduled run failed: {facts.last_run_failed}", "mistudio-ops backup schedule show")


def _notify(facts: BackupFacts) -> Finding | None:
    if facts.notify_problem is None:
        return None
    return Finding.bad(f"nobody would be told of a failure: {facts.notify_problem}", "correct MISTUDIO_NOTIFY_URLS")


def _figures(facts: BackupFacts, good: Sequence[StoredBackup]) -> BackupFigures:
    counts = BackupFigures(len(good), len(facts.backups) - len(good), free=facts.free_bytes)
    newest = good[-1] if good else None
    if newest is None or newest.manifest is None:
        return counts
    last = _last_proof(facts, good)
    return replace(
        counts,
        newest_id=newest.id,
        newest_created=newest.manifest.created,
        age=(facts.now - newest.manifest.created).total_seconds(),
        size=newest.manifest.size,
        duration=newest.manifest.seconds.get("all"),
        restore_verified=last,
        verified_age=(facts.now - last).total_seconds() if last else None,
    )


def _last_proof(facts: BackupFacts, good: Sequence[StoredBackup]) -> datetime | None:
    """Return when a backup was last proven by a restore. A time in the future says nothing."""
    proofs = [at for one in good if (at := one.marks.verified("restore")) is not None]
    return max((at for at in proofs if at <= facts.now + TOLERANCE), default=None)


def size_of(stored: StoredBackup) -> int:
    """Return the bytes of the dump before compression, which say more about what is in it than those after."""
    if stored.manifest is None:
        return 0
    entry = stored.manifest.file("database")
    return entry.plain_size if entry is not None else stored.manifest.size


def _perfdata(report: BackupReport) -> str:
    figures = report.figures
    values = {
        "age": (figures.age, f"s;;{report.max_age:.0f};0"),
        "size": (figures.size, "B;;;0"),
        "verified_age": (figures.verified_age, f"s;;{report.max_verified_age:.0f};0"),
        "good": (figures.good, ";;;0"),
        "bad": (figures.bad, ";;;0"),
        "free": (figures.free, "B;;;0"),
    }
    return " ".join(f"{name}={value:.0f}{unit}" for name, (value, unit) in values.items() if value is not None)


def span(age: timedelta) -> str:
    """Return a span of time in the unit that fits it."""
    hours = age.total_seconds() / 3600
    if hours >= 48:  # noqa: PLR2004 - up to two days people count hours
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{max(hours, 0) * 60:.0f} min"
