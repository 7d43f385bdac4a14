"""What a restore, and what comes after one, did."""

from dataclasses import dataclass

from mistudio_ops.domain.restore_plan import Loss, RestorePlan


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a step took."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class KeptDatabase:
    """A database that is not live: its size in bytes on the server's disk."""

    name: str
    purpose: str
    bytes: int


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """``kept`` is the database from before; ``safety`` the backup made of it; ``downtime`` seconds without writers."""

    environment: str
    database: str
    plan: RestorePlan
    loss: Loss | None = None
    dry_run: bool = False
    resumed: bool = False
    kept: KeptDatabase | None = None
    safety: str | None = None
    seconds: float = 0.0
    downtime: float = 0.0
    timings: tuple[Timing, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AbortResult:
    """What aborting did. ``swapped_back``: the restored database served already, and is ``kept`` under that name."""

    environment: str
    database: str
    backup: str | None
    dropped: tuple[str, ...] = ()
    swapped_back: bool = False
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class FinalizeResult:
    """The databases from before restores that were dropped."""

    environment: str
    dropped: tuple[KeptDatabase, ...]

    @property
    def bytes(self) -> int:
        """The room that they took."""
        return sum(one.bytes for one in self.dropped)


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """Where restores stand: one that was cut off, and databases that are kept or left."""

    environment: str
    database: str
    exists: bool
    interrupted: RestorePlan | None = None
    begun: str | None = None
    done: tuple[str, ...] = ()
    swapped: bool = False
    others: tuple[KeptDatabase, ...] = ()
