"""Health against a real PostgreSQL and store: what is right, and every way in which it can be wrong."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from mistudio_ops.domain.check import CheckResult, Status
from mistudio_ops.errors import UsageError
from mistudio_ops.operations.health import run as health_run
from mistudio_ops.operations.health.facts import Facts, UnitFact
from mistudio_ops.operations.health.http import NoAnswerError, fetch
from mistudio_ops.operations.health.run import NAMES, check_health
from tests.integration.health.conftest import PAGE, WORKING, StandIn, Vary, healthy

pytestmark = pytest.mark.integration


def one(facts: Facts, name: str) -> CheckResult:
    return check_health(facts, only=[name]).checks[0]


def test_a_healthy_environment(facts: Facts) -> None:
    report = check_health(facts)
    assert [(check.name, check.status) for check in report.checks] == [(name, Status.OK) for name in NAMES]
    evidence = {check.name: check.evidence for check in report.checks}
    assert evidence["api"] == "2 of 2 healthy (proxy, backend-1), release r0001"
    assert evidence["postgres"].startswith("PostgreSQL 1")
    assert "DB 0 (Celery) and DB 1 (events)" in evidence["redis"]
    assert evidence["worker"] == "worker-1 (release r0001, process 7, busy with trn_1) answered a task"
    assert evidence["migrations"] == "the schema is at 0001"
    assert next(check for check in report.checks if check.name == "worker").latency_ms == 12.3
    assert "made 6 months ahead" in evidence["partitions"]
    assert evidence["pool"].startswith("1 backends of 5+10 and 1 workers of 10 may open 25 of ")
    assert evidence["units"] == "all 2 run; restarts: backend-1 2"
    assert report.took_ms < 5000


def test_units_are_left_out_where_there_is_no_engine(vary: Vary) -> None:
    assert "units" not in {check.name for check in check_health(vary(units=None), only=["units", "disk"]).checks}


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(UsageError, match="no check apy"):
        check_health(None, only=["apy"])  # type: ignore[arg-type]


# The API and the page.


def test_a_dead_backend_behind_a_living_proxy_is_seen(vary: Vary, refusing: str, facts: Facts) -> None:
    check = one(vary(backends={**facts.backends, "backend-2": refusing}), "api")
    assert check.status is Status.FAIL
    assert check.evidence == f"2 of 3 healthy; backend-2: nothing listens on {refusing.removeprefix('http://')}"
    assert check.hint == "mistudio-ops logs backend-2 -e local"


def test_a_503_tells_its_checks(vary: Vary, serve: Callable[..., StandIn]) -> None:
    checks = {"redis": {"ok": False, "evidence": "TimeoutError"}, "database": {"ok": True}}
    body = json.dumps({"status": "unhealthy", "instance": "backend-1", "checks": checks})
    bad = serve(api=(503, "application/json", body))
    check = one(vary(proxy_url=bad.url, backends={"backend-1": bad.url}), "api")
    assert check.evidence == "0 of 2 healthy; proxy, backend-1: 503 unhealthy: redis (TimeoutError)"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((302, "http://elsewhere/login", ""), "answered 302, a redirect to http://elsewhere/login"),
        ((502, "text/html", "<h1>Bad\nGateway</h1>"), "answered 502: '<h1>Bad Gateway</h1>'"),
        ((200, "text/html", PAGE), "answered 200: '<!doctype html>"),
        ((200, "application/json", "[1, 2]"), "answered 200: '[1, 2]'"),
        ((200, "application/json", ""), "answered 200: an empty body"),
        ((200, "application/json", '{"status": 7}'), "answered 200: "),
        ((500, "application/json", '{"status": "healthy"}'), "answered 500: "),
        ((503, "application/json", '{"status": "unhealthy"}'), "503 unhealthy: it does not say why"),
        (healthy("somebody-else"), "another server answers there: somebody-else"),
        ((404, "text/plain", "\x1b[2Jnot found"), "answered 404: "),
    ],
)
def test_wrong_answers_are_evidence(
    answer: tuple[int, str, str], expected: str, vary: Vary, serve: Callable[..., StandIn]
) -> None:
    check = one(vary(backends={"backend-1": serve(api=answer).url}), "api")
    assert check.status is Status.FAIL
    assert f"backend-1: {expected}" in check.evidence


def test_different_releases_are_a_warning(vary: Vary, serve: Callable[..., StandIn]) -> None:
    other = serve(api=healthy("backend-1", release="r0002"))
    check = one(vary(backends={"backend-1": other.url}), "api")
    assert (check.status, "release r0001 and r0002" in check.evidence) == (Status.WARN, True)


def test_bytes_that_are_no_http(vary: Vary, babbling: str) -> None:
    api = one(vary(backends={"backend-1": babbling}), "api")
    assert "does not speak HTTP" in api.evidence
    assert "does not speak HTTP" in one(vary(proxy_url=babbling), "frontend").evidence


def test_an_endless_answer_is_cut(vary: Vary, serve: Callable[..., StandIn]) -> None:
    check = one(vary(proxy_url=serve(page=(200, "text/html", "x" * 3_000_000)).url), "frontend")
    assert check.evidence.startswith("200, but it is not the page of MiStudio")
    assert len(check.evidence) < 300


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, "text/html", "<title>Welcome to nginx!</title>"), "it is not the page of MiStudio"),
        ((200, "application/json", '{"mistudio": 1}'), "it is not the page of MiStudio"),
        ((404, "text/plain", "gone"), "answered 404: 'gone'"),
        ((301, "https://x/", ""), "a redirect to https://x/"),
    ],
)
def test_the_page_is_recognised(
    answer: tuple[int, str, str], expected: str, vary: Vary, serve: Callable[..., StandIn]
) -> None:
    check = one(vary(proxy_url=serve(page=answer).url), "frontend")
    assert (check.status, expected in check.evidence) == (Status.FAIL, True)
    assert check.hint


# PostgreSQL.


def with_url(facts: Facts, **parts: object) -> str:
    return make_url(facts.variables["DATABASE_URL"]).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "evidence", "hint"),
    [
        ({"password": "wrong-planted"}, "password authentication failed", "the password in DATABASE_URL"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist', "mistudio-ops deploy creates"),
        ({"port": 1}, "Connection refused", "mistudio-ops logs postgres -e local"),
    ],
)
def test_postgres_that_does_not_let_us_in(
    parts: dict[str, object], evidence: str, hint: str, vary: Vary, facts: Facts
) -> None:
    report = check_health(vary(DATABASE_URL=with_url(facts, **parts)), only=["postgres", "partitions", "pool"])
    check = report.checks[0]
    assert check.status is Status.FAIL
    assert evidence in check.evidence
    assert hint in str(check.hint)
    for dependent in report.checks[1:]:
        assert dependent.status is Status.FAIL
        assert dependent.evidence.startswith("needs postgres, which fails: ")
        assert dependent.hint == "see postgres first"
    assert "planted" not in str(report)


@pytest.mark.parametrize("url", ["postgresql://u:planted-%zz@h/d", "postgresql://u:planted-x@[h/d", "planted-secret"])
def test_a_url_that_is_none_is_not_repeated(url: str, vary: Vary) -> None:
    check = one(vary(DATABASE_URL=url), "postgres")
    assert check.status is Status.FAIL
    assert "planted" not in f"{check.evidence}{check.hint}"


def test_partitions_that_run_out(facts: Facts) -> None:
    with psycopg.connect(facts.database_url, autocommit=True) as connection:
        names = [row[0] for row in connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'training_metrics'::regclass ORDER BY 1"
        )]  # fmt: skip
        for name in names[3:]:
            connection.execute(f"DROP TABLE {name}")  # type: ignore[call-overload]
        check = one(facts, "partitions")
        assert check.evidence == "3 partitions, made 1 months ahead; at least 2 are needed"
        assert check.status is Status.FAIL
        for name in names[:3]:
            connection.execute(f"DROP TABLE {name}")  # type: ignore[call-overload]
    assert one(facts, "partitions").evidence == "training_metrics has no partitions"


def test_pools_that_are_larger_than_the_server(vary: Vary) -> None:
    check = one(vary(DB_POOL_SIZE="200", DB_MAX_OVERFLOW="40"), "pool")
    assert check.status is Status.FAIL
    assert "1 backends of 200+40" in check.evidence
    assert "raise max_connections above " in str(check.hint)


def test_the_servers_own_defaults_count_where_nothing_is_set(facts: Facts) -> None:
    bare = {key: value for key, value in facts.variables.items() if not key.startswith("DB_")}
    assert "backends of 20+40" in one(replace(facts, variables=bare), "pool").evidence


# The store.


def test_the_stores_password(vary: Vary, redis_url: str) -> None:
    host = redis_url.rpartition("@")[2]
    check = one(vary(REDIS_URL=f"redis://:wrong-planted@{host}"), "redis")
    assert (check.status, "the password in REDIS_URL" in str(check.hint)) == (Status.FAIL, True)
    assert "planted" not in f"{check.evidence}{check.hint}"
    nobody = one(vary(REDIS_WS_URL=f"redis://{host}"), "redis")
    assert (nobody.status, "the password" in str(nobody.hint)) == (Status.FAIL, True)


def test_a_store_that_is_none(vary: Vary, refusing: str, babbling: str) -> None:
    refused = one(vary(REDIS_URL=f"redis://{refusing.removeprefix('http://')}/0"), "redis")
    assert "refused" in refused.evidence.lower()
    assert refused.hint == "mistudio-ops logs redis -e local"
    assert one(vary(REDIS_URL=f"redis://{babbling.removeprefix('http://')}/0"), "redis").status is Status.FAIL


# The server's own program.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('garbage')", "mistudio-server check ended with 0 and said: garbage"),
        ("sys.exit('no module named celery')", "ended with 1 and said: no module named celery"),
        ("print(json.dumps({'ok': True, 'checks': []}))", "its answer lacks what was asked for"),
        ("print(json.dumps([1]))", "and said: [1]"),
        ("os.kill(os.getpid(), 9)", "ended with -9 and said: nothing"),
    ],
)
def test_a_program_that_fails(body: str, expected: str, vary: Vary, program: Callable[[str], Path]) -> None:
    check = one(vary(python=program(body)), "worker")
    assert (check.status, expected in check.evidence) == (Status.FAIL, True)
    assert check.hint == "mistudio-ops logs worker-1 -e local"


def test_a_silent_worker_is_named_with_the_programs_own_words(vary: Vary, program: Callable[[str], Path]) -> None:
    check = {"name": "worker", "ok": False, "latency_ms": 4000, "evidence": "no answer in 4 s", "hint": "start one"}
    result = one(
        vary(python=program(f"print(json.dumps({{'ok': False, 'checks': [{check!r}]}})); sys.exit(1)")), "worker"
    )
    assert (result.status, result.evidence, result.hint) == (Status.FAIL, "no answer in 4 s", "start one")


def test_a_missing_program(vary: Vary, tmp_path: Path) -> None:
    assert "cannot be run: No such file" in one(vary(python=tmp_path / "nope"), "worker").evidence


def test_a_schema_behind_the_code(vary: Vary, program: Callable[[str], Path]) -> None:
    check = {"name": "migrations", "ok": False, "evidence": "at nothing, the code wants 0002", "hint": None}
    body = f"print(json.dumps({{'ok': False, 'checks': [{check!r}]}})); sys.exit(1)"
    result = one(vary(python=program(body)), "migrations")
    assert (result.status, result.evidence) == (Status.FAIL, "at nothing, the code wants 0002")
    assert result.hint == "mistudio-ops deploy local migrates it"


def test_the_program_is_started_once_for_both_checks(
    vary: Vary, program: Callable[[str], Path], tmp_path: Path
) -> None:
    counted = tmp_path / "count"
    body = f"open({str(counted)!r}, 'a').write(' '.join(argv) + chr(10))\n{WORKING}"
    assert check_health(vary(python=program(body)), only=["worker", "migrations"]).healthy
    assert counted.read_text().splitlines() == ["check --only worker --only migrations --json --timeout 4"]


def test_the_program_gets_the_variables_and_no_others(
    vary: Vary, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_SLOTS", "9")
    python = program("sys.exit(f'{sorted(os.environ)} {argv}')")
    evidence = one(vary(python=python, DB_POOL_SIZE="6"), "worker").evidence
    assert "REDIS_URL" in evidence
    assert "TRAINING_SLOTS" not in evidence
    assert "'--only', 'worker', '--json'" in evidence


# Units and the whole.


def test_units_that_are_down(vary: Vary) -> None:
    units = [UnitFact("beat", "RUNNING", True), UnitFact("worker-1", "BACKOFF", False, 4)]
    check = one(vary(units=lambda: units), "units")
    assert check.evidence == "1 of 2 run; worker-1 is BACKOFF; restarts: worker-1 4"
    assert check.hint == "mistudio-ops logs worker-1 -e local"
    assert one(vary(units=list), "units").hint == "mistudio-ops deploy local"


def test_a_supervisor_that_raises_is_a_failure_not_a_crash(vary: Vary) -> None:
    def gone() -> list[UnitFact]:
        raise RuntimeError("supervisord does not answer\nsecond line")

    assert one(vary(units=gone), "units").evidence == "supervisord does not answer"


def test_everything_hanging_takes_less_than_ten_seconds(
    vary: Vary, silent: str, program: Callable[[str], Path], facts: Facts
) -> None:
    host, port = silent.removeprefix("http://").split(":")
    hanging = vary(
        proxy_url=silent,
        backends={"backend-1": silent, "backend-2": silent},
        DATABASE_URL=with_url(facts, host=host, port=int(port)),
        REDIS_URL=f"redis://{host}:{port}/0",
        python=program("time.sleep(60)"),
        units=lambda: time.sleep(60),  # type: ignore[arg-type, return-value]
    )
    begun = time.monotonic()
    report = check_health(hanging)
    assert time.monotonic() - begun < 9
    assert {check.name for check in report.checks if check.ok} == {"disk"}
    assert all(check.hint for check in report.failed)
    assert "127.0.0.1" in next(check for check in report.checks if check.name == "api").evidence


def test_a_drip_of_bytes_is_too_slow(dripping: str) -> None:
    begun = time.monotonic()
    with pytest.raises(NoAnswerError, match="sends its answer too slowly"):
        fetch(dripping, seconds=0.4)
    assert time.monotonic() - begun < 2


def test_no_limit_of_a_check_reaches_ten_seconds() -> None:
    assert max(check.seconds for check in health_run.CHECKS) < 8, "two seconds are left for starting and reporting"


# The real program.


def test_the_real_program_reads_the_revision(vary: Vary) -> None:
    check = one(vary(python=Path(sys.executable)), "migrations")
    assert (check.status, "the schema is at 0" in check.evidence) == (Status.OK, True)


def test_the_real_program_finds_no_worker(vary: Vary) -> None:
    check = one(vary(python=Path(sys.executable), REDIS_PREFIX="nobody-works-here"), "worker")
    assert check.status is Status.FAIL
    assert check.hint
    assert check.latency_ms < 8000
