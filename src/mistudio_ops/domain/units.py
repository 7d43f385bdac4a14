"""Units: the processes that an environment consists of, as values. Nothing here starts anything."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

UnitKind = Literal["postgres", "redis", "backend", "worker", "beat", "proxy"]

#: Groups in the order in which they are stopped, each together: who asks before who answers.
STOP_ORDER: tuple[frozenset[UnitKind], ...] = (
    frozenset({"proxy"}),
    frozenset({"beat", "backend", "worker"}),
    frozenset({"redis"}),
    frozenset({"postgres"}),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """How one process is started and stopped.

    ``uid`` and ``gid`` are who it runs as (None: as we do). ``death_signal`` is what the kernel sends it when its
    supervisor dies. ``stop_seconds`` is the time between ``stop_signal`` and SIGKILL.
    """

    name: str
    kind: UnitKind
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    kill_group: bool = True
    uid: int | None = None
    gid: int | None = None
    ports: tuple[int, ...] = ()

    def document(self) -> str:
        """Return the canonical JSON that the launcher reads. It holds secrets: write it with mode 0600."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Unit":
        """Return the unit of which ``document`` is the JSON form."""
        lists = {name: tuple(document[name]) for name in ("argv", "ports")}
        return cls(**{**document, **lists})

    @property
    def digest(self) -> str:
        """Identity of the definition: a running unit with another digest has to be restarted."""
        return hashlib.sha256(self.document().encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit as the supervisor sees it. ``digest`` is the definition that the running process was started with."""

    name: str
    state: str
    pid: int | None = None
    since: float | None = None
    digest: str | None = None
    reason: str = ""

    @property
    def running(self) -> bool:
        """True when there is a process, however young."""
        return self.state in {"RUNNING", "STARTING"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The units of an environment, in the order in which they start."""

    units: tuple[Unit, ...] = field(default=())

    def of(self, *kinds: UnitKind) -> tuple[Unit, ...]:
        """Return the units of these kinds."""
        return tuple(unit for unit in self.units if unit.kind in kinds)

    def get(self, name: str) -> Unit | None:
        """Return the unit of that name."""
        return next((unit for unit in self.units if unit.name == name), None)


def kind_of(name: str) -> UnitKind | None:
    """Return the kind that a unit's name tells, as ``backend`` for ``backend-2``."""
    kinds: dict[str, UnitKind] = {
        "postgres": "postgres",
        "redis": "redis",
        "backend": "backend",
        "worker": "worker",
        "beat": "beat",
        "proxy": "proxy",
    }
    return kinds.get(name.partition("-")[0])
