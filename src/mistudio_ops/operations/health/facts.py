"""What the checks need to know about an environment. Gathered once; nothing is contacted here."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mistudio_ops.config.secret_keys import is_secret, url_passwords
from mistudio_ops.domain.environment import Environment

#: Connections of one worker: the pools of its jobs and of its maintenance tasks.
WORKER_CONNECTIONS = 10


@dataclass(frozen=True, slots=True)
class UnitFact:
    """One unit as its supervisor sees it; ``restarts`` is None where nobody counts."""

    name: str
    state: str
    running: bool
    restarts: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Addresses, variables and the way to ask for units.

    ``variables`` are those the server's units run with, secrets included. ``units`` is None where there is no engine
    to ask (a server that somebody else runs).
    """

    environment: Environment
    proxy_url: str
    backends: Mapping[str, str]
    variables: Mapping[str, str] = field(repr=False)
    units: Callable[[], list[UnitFact]] | None = None
    python: Path = field(default_factory=lambda: Path(sys.executable))
    worker_connections: int = WORKER_CONNECTIONS

    @property
    def database_url(self) -> str:
        """URL for libpq, which knows no SQLAlchemy driver names."""
        return self.variables["DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://", 1)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not appear in any evidence."""
        values = [value for name, value in self.variables.items() if is_secret(name)]
        return tuple(secret for value in values for secret in (value, *url_passwords(value)))

    def logs_hint(self, unit: str) -> str:
        """Return the command that shows a unit's log."""
        return f"mistudio-ops logs {unit} -e {self.environment.name}"
