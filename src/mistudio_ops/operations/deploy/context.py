"""What the steps of a deploy work with."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.plan import Facts
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.units import Unit
from mistudio_ops.engines.base import Engine
from mistudio_ops.engines.host import Host
from mistudio_ops.errors import OpsError
from mistudio_ops.presentation.reporter import Reporter

#: A unit that ended this often while we wait for it will not become ready.
MAX_ENDS = 3
UNIT_SECONDS = 60.0
#: Gates ask a unit often, and the supervisor about it no more often than this: it has other work while units start.
LOOK_SECONDS = 0.4
LOG_LINES = 25
#: How long other maintenance of the database (a backup, the archiver) is waited for.
LOCK_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How the database is migrated: seconds to wait for other maintenance, and whether a backup is made before.

    ``environ`` is where a backup's passphrase may be.
    """

    lock_wait: float = LOCK_WAIT_SECONDS
    skip_backup: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)


class CancelledError(OpsError):
    """Another step failed, or the deploy was interrupted."""

    code = "cancelled"


@dataclass(slots=True)
class Context:
    """Shared by the steps of one deploy, which may run in several threads. ``schema`` is set by the migration."""

    environment: Environment
    host: Host
    secrets: SecretValues
    facts: Facts
    proxy_config: str
    engine: Engine
    reporter: Reporter
    migration: MigrationOptions = MigrationOptions()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    schema: str | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    undos: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def can_undo(self, what: str, undo: Callable[[], None]) -> None:
        """Keep how to take ``what`` back, before it is begun: what fails halfway must be taken back too."""
        self.undos.append((what, undo))

    def unit(self, name: str) -> Unit:
        """Return the wanted unit of that name."""
        unit = self.facts.wanted.get(name)
        if unit is None:
            raise OpsError(f"there is no unit {name}")
        return unit

    def watch(self, unit: str, *, seconds: float = UNIT_SECONDS) -> Callable[[], None]:
        """Return a function to call while waiting for ``unit``: it raises when waiting makes no sense any more."""
        deadline = self.clock() + seconds
        # Of a process that ends at once no look may catch the pid, but its start stays on record.
        starts: set[float] = set()
        looked = -LOOK_SECONDS

        def give_up() -> None:
            nonlocal looked
            if self.cancelled.is_set():
                raise CancelledError(f"stopped waiting for {unit}")
            if self.clock() - looked < LOOK_SECONDS:
                return
            looked = self.clock()
            state = self.engine.states().get(unit)
            if state is not None and state.since is not None:
                starts.add(state.since)
            if len(starts) > MAX_ENDS or (state is not None and state.state == "FATAL"):
                raise self.failure(unit, f"{unit} ends right after it starts")
            if self.clock() > deadline:
                raise self.failure(unit, f"{unit} is not ready after {seconds:.0f} s")

        return give_up

    def failure(self, unit: str, what: str) -> OpsError:
        """Return the error about a unit, with the end of its log."""
        lines = self.engine.log(unit, LOG_LINES)
        text = "\n".join(f"    {line}" for line in lines) or "    (it wrote nothing)"
        return OpsError(
            f"{what}; the end of its log:\n{text}",
            hint=f"mistudio-ops logs {unit} -n 200 -e {self.environment.name}; "
            f"then run mistudio-ops deploy {self.environment.name} again",
        )
