"""Monthly partitions of the metrics and their archive: made ahead, because a missing month is an insert error.

There is no default partition: rows in it would have to be moved under a lock before their month could be made.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime

from psycopg import sql
from sqlalchemy import text

from mistudio_server.db.engine import ReadSession, WriteSession

PARENTS = ("training_metrics", "training_metrics_archive")
MONTHS_AHEAD = 6
#: Writers that came after us wait as long as we wait: so not for long. The next attempt is a beat away.
LOCK_TIMEOUT = "2s"
_LOCK = 0x7061_7274  # "part": one process makes partitions at a time

_NAMES = text(
    "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
    " WHERE inhparent = CAST(:parent AS regclass)"
)
# Made apart and attached: ATTACH lets readers and writers of the parent go on, CREATE ... PARTITION OF does not.
_CREATE = sql.SQL("CREATE TABLE {child} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
_ATTACH = sql.SQL("ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({start}) TO ({end})")


async def premake(session: WriteSession, *, today: date | None = None, months: int = MONTHS_AHEAD) -> list[str]:
    """Make the partitions from the month before ``today`` (UTC) to ``months`` ahead; return the names of new ones.

    The month before is there for a clock that is behind on the first of a month. Doing it again changes nothing.

    Raises:
        sqlalchemy.exc.OperationalError: the tables stayed locked for ``LOCK_TIMEOUT``.
    """
    await session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    made = []
    for parent in PARENTS:
        present = await _present(session, parent)
        for month in _months(today or _today(), -1, months):
            name = partition_name(parent, month)
            if name not in present:
                await _make(session, parent, name, month)
                made.append(name)
    return made


async def months_ahead(session: ReadSession | WriteSession, *, today: date | None = None) -> int:
    """Return how many months after the current one (UTC) can be written without a gap; -1 when not even this one."""
    present = [await _present(session, parent) for parent in PARENTS]
    ahead = -1
    for month in _months(today or _today(), 0, 120):
        if any(partition_name(parent, month) not in names for parent, names in zip(PARENTS, present, strict=True)):
            break
        ahead += 1
    return ahead


def partition_name(parent: str, month: date) -> str:
    """Return the name of the partition of ``parent`` for ``month``, as in ``training_metrics_y2026m01``."""
    return f"{parent}_y{month:%Y}m{month:%m}"


async def _present(session: ReadSession | WriteSession, parent: str) -> set[str]:
    return set((await session.execute(_NAMES, {"parent": parent})).scalars())


async def _make(session: WriteSession, parent: str, name: str, month: date) -> None:
    (following,) = _months(month, 1, 1)
    names = {"child": sql.Identifier(name), "parent": sql.Identifier(parent)}
    bounds = {
        key: sql.Literal(f"{value:%Y-%m-%d} 00:00:00+00") for key, value in (("start", month), ("end", following))
    }
    for statement in (_CREATE.format(**names), _ATTACH.format(**names, **bounds)):
        await session.execute(text(statement.as_string(None).replace(":", r"\:")))


def _months(around: date, first: int, last: int) -> Iterator[date]:
    """Yield the first days of the months from ``first`` to ``last`` counted from the month of ``around``."""
    for offset in range(first, last + 1):
        years, month = divmod(around.month - 1 + offset, 12)
        yield date(around.year + years, month + 1, 1)


def _today() -> date:
    return datetime.now(UTC).date()
