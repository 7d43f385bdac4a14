"""How many connections an environment may open, and how little memory its servers take."""

from collections.abc import Mapping
from dataclasses import dataclass

from mistudio_ops.domain.environment import Environment

#: Pools of an embedded environment. SPEC's 20 + 40 per backend is for a database server of its own: three backends
#: could open 180 connections, each a process of 2 to 10 MB, on a board with 8 GB. 5 + 10 carries 15 queries at once
#: in each backend.
LOCAL_POOL_SIZE = 5
LOCAL_MAX_OVERFLOW = 10
#: What one worker may open: the pools of its jobs and of its maintenance tasks.
WORKER_CONNECTIONS = 10
#: Beat, migrations, health checks, an operator's psql, PostgreSQL's reserved ones.
MARGIN = 20


@dataclass(frozen=True, slots=True)
class Connections:
    """``pool_size`` + ``max_overflow`` per backend, and what PostgreSQL must allow in all."""

    pool_size: int
    max_overflow: int
    maximum: int


def connections(environment: Environment) -> Connections:
    """Return pools and ``max_connections`` that fit each other; ``environment.server`` may set the pools."""
    pool = _number(environment.server, "DB_POOL_SIZE", LOCAL_POOL_SIZE)
    overflow = _number(environment.server, "DB_MAX_OVERFLOW", LOCAL_MAX_OVERFLOW)
    total = environment.backends * (pool + overflow) + environment.workers * WORKER_CONNECTIONS + MARGIN
    return Connections(pool, overflow, max(total, 40))


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    value = variables.get(name, "")
    return int(value) if value.isdigit() else default
