"""How often a worker looks, writes and says that it is alive. In one place, so that tests can be quick."""

from dataclasses import dataclass

from mistudio_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds. The defaults are those of production."""

    #: Between two looks at a run's status: how long a pause takes to be noticed.
    poll_seconds: float = 0.3
    heartbeat_seconds: float = 5.0
    heartbeat_timeout_seconds: float = 30.0
    #: A commit is shared by the metrics of so many seconds, or so many rows.
    batch_seconds: float = 0.1
    batch_rows: int = 500
    #: Between two looks at the queue without a wake-up.
    idle_seconds: float = 2.0
    #: For a checkpoint on a slow card after a pause or a stop.
    finish_seconds: float = 120.0
    #: For a checkpoint after SIGTERM of the worker, which has to be gone within 30 s.
    shutdown_seconds: float = 20.0

    def grace_seconds(self, reason: str) -> float:
        """Return how long a child may take to end for this reason."""
        return self.shutdown_seconds if reason == "interrupted" else self.finish_seconds


def timing_of(settings: Settings) -> Timing:
    """Return the timing that the settings ask for."""
    heartbeat = settings.training_heartbeat_seconds
    timeout = settings.training_heartbeat_timeout_seconds
    return Timing(heartbeat_seconds=min(heartbeat, timeout / 3), heartbeat_timeout_seconds=timeout)
