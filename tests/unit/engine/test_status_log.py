"""Counting restarts in supervisord's own log."""

from mistudio_ops.domain.status import restarts

LOG = """\
2026-11-23 08:53:00,001 INFO supervisord started with pid 10
2026-11-23 08:53:00,002 INFO spawned: 'backend-1' with pid 11
2026-11-23 08:53:01,003 INFO success: backend-1 entered RUNNING state, process has stayed up for > than 1 seconds
2026-11-23 08:53:02,000 WARN exited: backend-1 (terminated by SIGKILL; not expected)
2026-11-23 08:53:02,500 INFO spawned: 'backend-1' with pid 12
2026-11-23 08:53:03,000 INFO spawned: 'beat' with pid 13
"""


def test_a_restart_is_an_end_followed_by_a_start() -> None:
    counted = restarts(LOG)
    assert counted["backend-1"].count == 1
    assert counted["backend-1"].last_end == "terminated by SIGKILL"
    assert counted["beat"].count == 0


def test_failed_starts_count_too() -> None:
    log = LOG + (
        "x WARN exited: backend-1 (exit status 1; not expected)\nx INFO spawned: 'backend-1' with pid 14\n" * 2
    )
    assert restarts(log)["backend-1"].count == 3
    assert restarts(log)["backend-1"].last_end == "exit status 1"


def test_a_stop_that_was_asked_for_begins_a_new_count() -> None:
    log = LOG + "x INFO stopped: backend-1 (exit status 0)\nx INFO spawned: 'backend-1' with pid 15\n"
    assert restarts(log)["backend-1"].count == 0


def test_a_new_supervisor_begins_a_new_count() -> None:
    assert restarts(LOG + "x INFO supervisord started with pid 20\n") == {}


def test_an_end_without_a_start_is_no_restart_yet() -> None:
    assert restarts(LOG + "x WARN exited: beat (exit status 3; not expected)\n")["beat"].count == 0
