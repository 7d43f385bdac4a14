"""Whether this instance and what it depends on are well. Checks run side by side, each with its own deadline."""

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from pydantic import SecretStr
from redis.exceptions import RedisError

from mistudio_server.db.engine import Database
from mistudio_server.paths import migrations_dir
from mistudio_server.repositories import system
from mistudio_server.settings import Settings

TIMEOUT_SECONDS = 2.0
PARTITION_MONTHS_AHEAD = 2
MIN_FREE_BYTES = 512 << 20
_LISTENER_GRACE_SECONDS = 1.0
_ASSIGNMENT = re.compile(r"^(revision|down_revision)\b[^=]*=\s*(?:[\"']([^\"']+)[\"']|None)", re.MULTILINE)


class CheckFailedError(Exception):
    """A check found something wrong; ``hint`` says what to do."""

    def __init__(self, evidence: str, hint: str) -> None:
        super().__init__(evidence)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found. ``evidence`` is what was seen, good or bad."""

    name: str
    ok: bool
    latency_ms: float
    evidence: str
    hint: str | None


Probe = Callable[[], Awaitable[str]]


async def run_checks(probes: Mapping[str, Probe], timeout: float = TIMEOUT_SECONDS) -> list[Check]:  # noqa: ASYNC109
    """Run the probes at once; none takes longer than ``timeout`` seconds."""
    return list(await asyncio.gather(*(_run(name, probe, timeout) for name, probe in probes.items())))


async def _run(name: str, probe: Probe, limit: float) -> Check:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limit):
            ok, evidence, hint = True, await probe(), None
    except CheckFailedError as error:
        ok, evidence, hint = False, str(error), error.hint
    except TimeoutError:
        ok, evidence, hint = False, f"no answer within {limit:g} s", f"see whether {name} is overloaded or stopped"
    except Exception as error:  # noqa: BLE001 - whatever a probe meets is its finding
        ok, evidence, hint = False, _short(error), f"see whether {name} runs, and its URL in the settings"
    return Check(name, ok, round((time.perf_counter() - started) * 1000, 2), evidence, hint)


def _short(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def probes(settings: Settings, database: Database) -> dict[str, Probe]:
    """Return the checks of ``GET /api/health``."""
    return {
        "database": partial(check_database, database),
        "migrations": partial(check_migrations, database),
        "partitions": partial(check_partitions, database),
        "redis": partial(check_redis, settings),
        "disk": partial(check_disk, settings.data_dir),
    }


async def check_database(database: Database) -> str:
    """See whether PostgreSQL answers a query."""
    async with database.read() as session:
        return f"PostgreSQL {await system.server_version(session)}"


async def check_migrations(database: Database) -> str:
    """See whether the schema is the one that this code was written for."""
    async with database.read() as session:
        current = await system.revision(session)
    wanted = await asyncio.to_thread(shipped_head)
    if current != wanted:
        raise CheckFailedError(
            f"the database is at {current or 'nothing'}, this release needs {wanted}", "run `mistudio-server migrate`"
        )
    return f"at {wanted}"


async def check_partitions(database: Database, now: datetime | None = None) -> str:
    """See whether metrics have partitions for at least two more months."""
    async with database.read() as session:
        end = await system.partitions_end(session)
    moment = now or datetime.now(UTC)
    months = (end.year - moment.year) * 12 + end.month - moment.month - 1 if end else -1
    if end is None or months < PARTITION_MONTHS_AHEAD:
        raise CheckFailedError(
            f"partitions of training_metrics end at {end.date() if end else 'nowhere'}",
            "see that beat and a worker run: they make partitions ahead every day",
        )
    return f"{months} months ahead, to {end.date()}"


async def check_redis(settings: Settings) -> str:
    """PING both databases of Redis."""
    both = {"REDIS_URL": settings.redis_url, "REDIS_WS_URL": settings.redis_ws_url}
    await asyncio.gather(*(_ping(name, url) for name, url in both.items()))
    return "PONG from REDIS_URL and REDIS_WS_URL"


async def _ping(name: str, url: SecretStr) -> None:
    from redis.asyncio import Redis  # noqa: PLC0415

    client = Redis.from_url(url.get_secret_value(), socket_connect_timeout=1.5, socket_timeout=1.5)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        raise CheckFailedError(f"{name}: {_short(error)}", f"see whether Redis runs where {name} points") from error
    finally:
        await client.aclose()


async def check_realtime(listening: Callable[[], bool]) -> str:
    """See whether events of other instances and of workers arrive here; a hub that has just started gets a second."""
    deadline = time.monotonic() + _LISTENER_GRACE_SECONDS
    while not listening():
        if time.monotonic() > deadline:
            raise CheckFailedError(
                "this instance does not listen on REDIS_WS_URL, so its clients get no events",
                "it tries again every second: see whether Redis runs there",
            )
        await asyncio.sleep(0.02)
    return "subscribed to REDIS_WS_URL"


async def check_disk(data_dir: Path) -> str:
    """See whether DATA_DIR can be written to and has room."""
    try:
        free = (await asyncio.to_thread(shutil.disk_usage, data_dir)).free
    except FileNotFoundError:
        raise CheckFailedError(f"DATA_DIR {data_dir} does not exist", "make the folder, or set DATA_DIR") from None
    if free < MIN_FREE_BYTES:
        raise CheckFailedError(
            f"{free >> 20} MiB free in DATA_DIR, under {MIN_FREE_BYTES >> 20}", "delete old checkpoints or datasets"
        )
    return f"{free >> 20} MiB free"


@lru_cache(maxsize=1)
def shipped_head() -> str:
    """Return the newest revision of the shipped scripts, read as text: importing Alembic costs 0.2 s and 20 MB."""
    revisions: set[str] = set()
    parents: set[str] = set()
    for script in (migrations_dir() / "versions").glob("*.py"):
        found = dict(_ASSIGNMENT.findall(script.read_text(encoding="utf-8")))
        revisions.add(found["revision"])
        parents.add(found.get("down_revision", ""))
    heads = revisions - parents
    if len(heads) != 1:
        raise RuntimeError(f"migrations have {len(heads)} heads: {sorted(heads)}")
    return heads.pop()
