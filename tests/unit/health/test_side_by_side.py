"""Functions side by side: what hangs delays nobody."""

import threading
import time

import pytest

from mistudio_ops.operations.health.side_by_side import side_by_side


def test_each_outcome_has_its_own_fate() -> None:
    release = threading.Event()

    def hang() -> str:
        release.wait(10)
        return "too late"

    def fail() -> str:
        raise LookupError("gone")

    begun = time.monotonic()
    outcomes = side_by_side({"hang": (hang, 0.1), "fail": (fail, 5.0), "work": (lambda: "done", 5.0)})
    release.set()
    assert time.monotonic() - begun < 2
    assert list(outcomes) == ["hang", "fail", "work"]
    assert outcomes["work"].value == "done"
    assert isinstance(outcomes["fail"].error, LookupError)
    assert (outcomes["hang"].value, outcomes["hang"].error) == (None, None)
    assert outcomes["hang"].seconds == pytest.approx(0.1, abs=0.3)


def test_they_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=5)
    outcomes = side_by_side({str(number): (barrier.wait, 6.0) for number in range(3)})
    assert sorted(outcome.value for outcome in outcomes.values() if outcome.value is not None) == [0, 1, 2]


def test_nothing_to_do() -> None:
    assert side_by_side({}) == {}
