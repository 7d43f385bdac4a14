"""What a deploy did."""

from dataclasses import dataclass

from mistudio_ops.domain.plan import Interrupted, Plan
from mistudio_ops.operations.deploy.run import Timing


@dataclass(frozen=True, slots=True)
class DeployResult:
    """``healthy`` is None after a dry run. ``seconds`` is the whole deploy; the timings overlap."""

    environment: str
    url: str
    release: str
    changed: bool
    dry_run: bool
    plan: Plan
    interrupted: Interrupted | None = None
    seconds: float = 0.0
    timings: tuple[Timing, ...] = ()
    health: str | None = None
