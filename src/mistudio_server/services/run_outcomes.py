"""What becomes of a run when a worker lets go of it. Pure decisions; ``repositories.runs`` carries them out."""

from dataclasses import dataclass
from typing import Literal

from mistudio_server.statuses import AssetStatus, TrainingStatus

WORKER_DIED = "worker_died"
_HINT = "look for the cause in the worker's log (out of memory is the usual one), then resume the run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run's process ended.

    ``completed``: all work is done. ``checkpointed``: it stopped in order and can go on later. ``failed``: it cannot
    go on, for the reason in ``code`` and ``message``. ``died``: it, or its worker, vanished; ``message`` says what
    is known.
    """

    kind: Literal["completed", "checkpointed", "failed", "died"]
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to write into the row."""

    status: TrainingStatus | AssetStatus
    attempts: int
    error_code: str | None = None
    error: str | None = None

    @property
    def requeued(self) -> bool:
        """True when a worker should look for it again."""
        return self.status in {TrainingStatus.QUEUED, AssetStatus.QUEUED}


def settle_training(status: TrainingStatus, attempts: int, outcome: Outcome, *, max_attempts: int) -> Settlement:
    """Return what becomes of a training that is in ``status`` (running, pausing or stopping) after ``outcome``.

    A user's wish that was not carried out yet decides over a death: who asked for a pause gets one, from the last
    checkpoint. Only the ``max_attempts``-th death in a row fails the run.
    """
    if outcome.kind == "completed":
        return Settlement(TrainingStatus.COMPLETED, attempts)
    if outcome.kind == "failed":
        return Settlement(TrainingStatus.FAILED, attempts, outcome.code, outcome.message)
    deaths = attempts + 1 if outcome.kind == "died" else attempts
    if status is TrainingStatus.STOPPING:
        return Settlement(TrainingStatus.CANCELLED, deaths)
    if outcome.kind == "died" and deaths >= max_attempts:
        return Settlement(TrainingStatus.FAILED, deaths, WORKER_DIED, given_up(deaths, outcome.message))
    if status is TrainingStatus.PAUSING:
        return Settlement(TrainingStatus.PAUSED, deaths)
    return Settlement(TrainingStatus.QUEUED, deaths)


def settle_extraction(attempts: int, outcome: Outcome, *, max_attempts: int) -> Settlement:
    """Return what becomes of an extraction after ``outcome``. It has no pause: it goes on, is ready, or failed."""
    match outcome.kind:
        case "completed":
            return Settlement(AssetStatus.READY, attempts)
        case "failed":
            return Settlement(AssetStatus.FAILED, attempts, outcome.code, outcome.message)
        case "checkpointed":
            return Settlement(AssetStatus.QUEUED, attempts)
        case "died":
            deaths = attempts + 1
            if deaths >= max_attempts:
                return Settlement(AssetStatus.FAILED, deaths, WORKER_DIED, given_up(deaths, outcome.message))
            return Settlement(AssetStatus.QUEUED, deaths)


def given_up(deaths: int, reason: str | None) -> str:
    """Return the error text of a run whose process died ``deaths`` times."""
    times = "once" if deaths == 1 else f"{deaths} times without getting to a new checkpoint in between"
    return f"the run's process died {times}; the last time: {reason or 'its worker vanished'}. What to do: {_HINT}."
