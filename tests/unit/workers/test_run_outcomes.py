"""What becomes of a run, as a table."""

import pytest

from mistudio_server.services.run_outcomes import Outcome, settle_extraction, settle_training
from mistudio_server.statuses import AssetStatus, TrainingStatus

RUNNING, PAUSING, STOPPING = TrainingStatus.RUNNING, TrainingStatus.PAUSING, TrainingStatus.STOPPING


@pytest.mark.parametrize(
    ("status", "attempts", "outcome", "becomes", "attempts_after"),
    [
        (RUNNING, 0, Outcome("completed"), "completed", 0),
        (PAUSING, 1, Outcome("completed"), "completed", 1),
        (STOPPING, 0, Outcome("completed"), "completed", 0),
        (RUNNING, 2, Outcome("checkpointed"), "queued", 2),
        (PAUSING, 0, Outcome("checkpointed"), "paused", 0),
        (STOPPING, 0, Outcome("checkpointed"), "cancelled", 0),
        (RUNNING, 0, Outcome("failed", "x", "y"), "failed", 0),
        (STOPPING, 0, Outcome("failed", "x", "y"), "failed", 0),
        (RUNNING, 0, Outcome("died"), "queued", 1),
        (RUNNING, 1, Outcome("died"), "queued", 2),
        (RUNNING, 2, Outcome("died"), "failed", 3),
        (PAUSING, 0, Outcome("died"), "paused", 1),
        (PAUSING, 2, Outcome("died"), "failed", 3),
        (STOPPING, 2, Outcome("died"), "cancelled", 3),
    ],
)
def test_trainings(status: TrainingStatus, attempts: int, outcome: Outcome, becomes: str, attempts_after: int) -> None:
    settled = settle_training(status, attempts, outcome, max_attempts=3)
    assert (settled.status, settled.attempts) == (becomes, attempts_after)
    assert (settled.error_code is None) == (becomes != "failed")
    assert settled.requeued == (becomes == "queued")


@pytest.mark.parametrize(
    ("attempts", "outcome", "becomes", "attempts_after"),
    [
        (0, Outcome("completed"), AssetStatus.READY, 0),
        (2, Outcome("checkpointed"), AssetStatus.QUEUED, 2),
        (0, Outcome("failed", "x", "y"), AssetStatus.FAILED, 0),
        (1, Outcome("died"), AssetStatus.QUEUED, 2),
        (2, Outcome("died"), AssetStatus.FAILED, 3),
    ],
)
def test_extractions(attempts: int, outcome: Outcome, becomes: AssetStatus, attempts_after: int) -> None:
    settled = settle_extraction(attempts, outcome, max_attempts=3)
    assert (settled.status, settled.attempts) == (becomes, attempts_after)


def test_the_error_says_how_often_why_and_what_to_do() -> None:
    settled = settle_training(RUNNING, 2, Outcome("died", message="it was killed by SIGKILL"), max_attempts=3)
    assert settled.error_code == "worker_died"
    assert settled.error is not None
    for part in ("3 times", "SIGKILL", "What to do", "resume"):
        assert part in settled.error


def test_a_single_death_is_enough_where_one_attempt_is_allowed() -> None:
    settled = settle_training(RUNNING, 0, Outcome("died"), max_attempts=1)
    assert settled.error is not None
    assert "once" in settled.error
    assert "vanished" in settled.error
