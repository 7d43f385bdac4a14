"""Running the checks side by side, each with its own limit, the whole within ten seconds."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from mistudio_ops.domain.check import CheckResult, Finding, HealthReport, Status, blame_prerequisites
from mistudio_ops.errors import UsageError
from mistudio_ops.operations.health.database import check_partitions, check_pool, check_postgres, postgres_hint
from mistudio_ops.operations.health.facts import Facts
from mistudio_ops.operations.health.http import check_api, check_frontend
from mistudio_ops.operations.health.machine import check_disk, check_units
from mistudio_ops.operations.health.server import PROGRAM_SECONDS, ServerProgram, check_migrations, check_worker
from mistudio_ops.operations.health.side_by_side import Outcome, side_by_side
from mistudio_ops.operations.health.store import check_redis, redis_hint
from mistudio_ops.presentation.redaction import Redactor

USUAL_SECONDS = 5.0
Hint = Callable[[Facts, str], str]


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its function, the seconds after which it is given up, what it cannot work without, its errors' hint.

    A check has either ``run``, or ``judge`` if it reads an answer of the server's own program.
    """

    name: str
    run: Callable[[Facts], Finding] | None = None
    judge: Callable[[ServerProgram], Finding] | None = None
    seconds: float = USUAL_SECONDS
    needs: tuple[str, ...] = ()
    hint: Hint = lambda facts, _: f"mistudio-ops status {facts.environment.name}"


_PROGRAM = PROGRAM_SECONDS + 0.3
CHECKS: tuple[Check, ...] = (
    Check("api", check_api, needs=("postgres", "redis")),
    Check("frontend", check_frontend),
    Check("postgres", check_postgres, hint=postgres_hint),
    Check("redis", check_redis, hint=redis_hint),
    Check("worker", judge=check_worker, seconds=_PROGRAM, needs=("redis",)),
    Check("migrations", judge=check_migrations, seconds=_PROGRAM, needs=("postgres",)),
    Check("partitions", check_partitions, needs=("postgres",), hint=postgres_hint),
    Check("pool", check_pool, needs=("postgres",), hint=postgres_hint),
    Check("disk", check_disk),
    Check("units", check_units),
)
NAMES = tuple(check.name for check in CHECKS)


def check_health(
    facts: Facts, *, only: Iterable[str] | None = None, clock: Callable[[], float] = time.monotonic
) -> HealthReport:
    """Run the checks (``only`` some of them) and return the report, at the latest after ten seconds.

    Raises:
        UsageError: ``only`` names a check that does not exist.
    """
    wanted = set(NAMES if only is None else only)
    if unknown := sorted(wanted - set(NAMES)):
        raise UsageError(f"there is no check {', '.join(unknown)}", hint=f"the checks are {', '.join(NAMES)}")
    checks = [check for check in CHECKS if check.name in wanted and (check.name != "units" or facts.units)]
    _load_libraries()
    begun = clock()
    program = ServerProgram(facts, [check.name for check in checks if check.judge])
    tasks = {check.name: (_bound(check, facts, program), check.seconds) for check in checks}
    outcomes = side_by_side(tasks, clock=clock)
    redactor = Redactor()
    redactor.hide(*facts.secrets)
    results = [_result(check, facts, outcomes[check.name], redactor) for check in checks]
    results_blamed = blame_prerequisites(results, {check.name: check.needs for check in checks})
    return HealthReport(facts.environment.name, facts.proxy_url, results_blamed, (clock() - begun) * 1000)


def _load_libraries() -> None:
    """Import them before the clocks start: side by side, they would be counted as the servers' latencies."""
    for name in ("httpx", "psycopg", "redis"):
        import_module(name)


def _bound(check: Check, facts: Facts, program: ServerProgram) -> Callable[[], Finding]:
    if check.judge is not None:
        return partial(check.judge, program)
    if check.run is None:
        raise TypeError(f"check {check.name} has no function")
    return partial(check.run, facts)


def _result(check: Check, facts: Facts, outcome: Outcome[Finding], redactor: Redactor) -> CheckResult:
    finding = outcome.value or _failure(check, facts, outcome)
    hint = redactor.mask(finding.hint) if finding.hint else None
    latency = outcome.seconds * 1000 if finding.latency_ms is None else finding.latency_ms
    return CheckResult(check.name, finding.status, round(latency, 1), redactor.mask(finding.evidence), hint)


def _failure(check: Check, facts: Facts, outcome: Outcome[Finding]) -> Finding:
    if outcome.error is None:
        message = f"no answer within {check.seconds:g} s"
    else:
        # Libraries wrap an error in several lines; the first says what, the others repeat it for each address.
        message = (str(outcome.error).strip() or type(outcome.error).__name__).splitlines()[0]
    return Finding(Status.FAIL, message, check.hint(facts, message))
