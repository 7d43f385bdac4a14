"""One line per outage, pauses that grow, and a count of what was lost."""

import structlog.testing

from mistudio_server.realtime.outage import LONGEST_PAUSE_SECONDS, Outage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_is_logged_once_when_it_begins_and_once_when_it_ends() -> None:
    clock = Clock()
    outage = Outage("redis", clock=clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            outage.failed(ConnectionError("refused"))
            clock.now += 10
        outage.skipped()
        outage.succeeded()
        outage.succeeded()
    assert [line["event"] for line in lines] == ["outage_began", "outage_ended"]
    assert "refused" in lines[0]["error"]
    assert lines[1]["failures"] == 6
    assert lines[1]["seconds"] == 50


def test_counts_only_its_own_losses_in_the_second_outage() -> None:
    outage = Outage("redis", clock=Clock())
    for _ in range(3):
        outage.failed(OSError())
    outage.succeeded()
    with structlog.testing.capture_logs() as lines:
        outage.failed(OSError())
        outage.succeeded()
    assert lines[-1]["failures"] == 1
    assert outage.failures == 4


def test_pauses_grow_to_a_limit_and_end_with_a_success() -> None:
    clock = Clock()
    outage = Outage("redis", clock=clock)
    assert not outage.pausing
    for _ in range(10):
        outage.failed(OSError())
        assert outage.pausing
        clock.now += LONGEST_PAUSE_SECONDS
        assert not outage.pausing
    outage.succeeded()
    outage.failed(OSError())
    clock.now += 0.3
    assert not outage.pausing


def test_healthy_follows_the_last_attempt() -> None:
    outage = Outage("redis", clock=Clock())
    assert outage.healthy
    outage.failed(OSError())
    assert not outage.healthy
    outage.succeeded()
    assert outage.healthy
