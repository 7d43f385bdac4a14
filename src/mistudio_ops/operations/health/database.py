"""PostgreSQL: does it answer, are partitions made ahead, does it allow the connections that our pools may open?"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mistudio_ops.domain.check import Finding
from mistudio_ops.operations.health.facts import Facts

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 4
STATEMENT_MS = 3000
#: Partitions are made six months ahead; with fewer than two, upkeep has not run for months.
MONTHS_AHEAD = 2
_PARTITIONED = "training_metrics"
_BOUNDS = """
SELECT pg_get_expr(child.relpartbound, child.oid)
FROM pg_inherits
JOIN pg_class child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = to_regclass(%s)
"""
_LIMITS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
           + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""
_RANGE = re.compile(r"FROM \('([^']+)'\) TO \('([^']+)'\)")
_MONTHS_A_YEAR = 12


def check_postgres(facts: Facts) -> Finding:
    """Connect, and run a statement."""
    with _connected(facts) as connection:
        connection.execute("SELECT 1")
        version = connection.info.parameter_status("server_version") or "?"
        info = connection.info
        return Finding.good(f"PostgreSQL {version.split()[0]}, database {info.dbname} at {info.host}:{info.port}")


def check_partitions(facts: Facts) -> Finding:
    """Measure for how many months after this one there is a partition for metrics."""
    with _connected(facts) as connection:
        bounds = [str(row[0]) for row in connection.execute(_BOUNDS, (_PARTITIONED,))]
    hint = "the worker and beat make partitions daily: mistudio-ops status, and read the log of beat"
    if not bounds:
        return Finding.bad(f"{_PARTITIONED} has no partitions", "mistudio-ops deploy migrates the database")
    ahead = months_ahead(bounds, datetime.now(UTC))
    if ahead is None:
        return Finding.bad("there is no partition for this month: metrics cannot be written", hint)
    evidence = f"{len(bounds)} partitions, made {ahead} months ahead"
    return Finding.good(evidence) if ahead >= MONTHS_AHEAD else Finding.bad(f"{evidence}; at least 2 are needed", hint)


def check_pool(facts: Facts) -> Finding:
    """Compare what all our pools may open with what the server allows."""
    with _connected(facts) as connection:
        row = connection.execute(_LIMITS).fetchone()
    limit, reserved, used = (int(number) for number in row or (0, 0, 0))
    size, overflow = _pool_setting(facts, "db_pool_size"), _pool_setting(facts, "db_max_overflow")
    backends, workers = facts.environment.backends, facts.environment.workers
    total = backends * (size + overflow) + workers * facts.worker_connections
    evidence = (
        f"{backends} backends of {size}+{overflow} and {workers} workers of {facts.worker_connections} may open "
        f"{total} of {limit - reserved} connections; {used} are open"
    )
    if total <= limit - reserved:
        return Finding.good(evidence)
    return Finding.bad(
        evidence,
        f"raise max_connections above {total + reserved}, or lower db_pool_size and db_max_overflow in "
        f"[environments.{facts.environment.name}.server] and deploy",
    )


def months_ahead(bounds: list[str], now: datetime) -> int | None:
    """Return how many months after the one of ``now`` are covered without a gap; None if this one is not.

    ``bounds`` are PostgreSQL's texts, as in ``FOR VALUES FROM ('2026-01-01 00:00:00+00') TO (...)``.
    """
    covered = set()
    for text in bounds:
        match = _RANGE.search(text)
        if match:
            covered |= set(range(_month(match[1]), _month(match[2])))
    this = now.year * _MONTHS_A_YEAR + now.month
    if this not in covered:
        return None
    ahead = 0
    while this + ahead + 1 in covered:
        ahead += 1
    return ahead


def _month(text: str) -> int:
    return int(text[:4]) * _MONTHS_A_YEAR + int(text[5:7])


def _pool_setting(facts: Facts, name: str) -> int:
    from mistudio_server.settings import Settings

    given = facts.variables.get(name.upper())
    return int(given) if given else int(Settings.model_fields[name].default)


@contextmanager
def _connected(facts: Facts) -> Iterator["psycopg.Connection[Any]"]:
    import psycopg

    options = f"-c statement_timeout={STATEMENT_MS} -c TimeZone=UTC"
    with psycopg.connect(
        facts.database_url, connect_timeout=CONNECT_SECONDS, autocommit=True, application_name="mistudio-ops health",
        options=options,
    ) as connection:  # fmt: skip
        yield connection


def postgres_hint(facts: Facts, message: str) -> str:
    """Return what to do about an error of libpq's."""
    if "password authentication failed" in message or "no password supplied" in message:
        return "the password in DATABASE_URL is not that of the role: " + (
            "set MISTUDIO_DATABASE_URL" if facts.environment.database_url else "mistudio-ops deploy sets it again"
        )
    if "does not exist" in message:
        return "mistudio-ops deploy creates what is missing"
    return (
        facts.logs_hint("postgres")
        if facts.environment.database_url is None
        else "is DATABASE_URL right, and the server up?"
    )
