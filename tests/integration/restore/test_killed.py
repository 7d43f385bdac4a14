"""A restore that is killed before or after each step: one whole database serves, and both ways out lead somewhere."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from mistudio_ops.operations.restore.afterwards import abort, finalize, status, undo
from mistudio_ops.operations.restore.interrupted import InterruptedRestoreError
from mistudio_ops.operations.restore.restore import restore, resume
from tests.support.restores import UNITS, KillingReporter, Restorable, in_child

pytestmark = pytest.mark.integration

#: How a step's line begins, and what is live when we are killed before and after it.
STEPS = [
    ("back up", "old", "old"),
    ("make the database", "old", "old"),
    ("load", "old", "old"),
    ("compare", "old", "old"),
    ("bring it to", "old", "old"),
    ("put runs", "old", "old"),
    ("stop what writes", "old", "old"),
    ("give it the name", "old", "new"),
    ("start", "new", "new"),
    ("ask for health", "new", "new"),
]
CASES = [
    pytest.param(title, when, live, id=f"{when}-{title.replace(' ', '-')}")
    for title, before, after in STEPS
    for when, live in (("before", before), ("after", after))
]
OLD, NEW = [1, 2, 3, 4, 5], [1, 2, 3]


def killed(lab: Restorable, title: str, when: str, work: Callable[[Restorable], object] | None = None) -> None:
    """Begin a restore in a process of its own that ends at that step."""
    doomed = replace(lab, workplace=replace(lab.workplace, reporter=KillingReporter(title, when)))
    action = work or (lambda one: restore(one.workplace, lab.stored.id, one.confirmed(), lab=one.lab))
    assert in_child(lambda: action(doomed)) == 99
    # What the process stopped is stopped: its engine was a copy of ours.
    if (title, when) > ("", "") and _stopped(title, when):
        for unit in UNITS:
            lab.fake.engine.stop(unit)


def _stopped(title: str, when: str) -> bool:
    order = [step for step, _, _ in STEPS]
    if title not in order:
        return title.startswith("put checkpoint")
    place = order.index(title) * 2 + (when == "after")
    return order.index("stop what writes") * 2 < place <= order.index("start") * 2


@pytest.mark.parametrize(("title", "when", "live"), CASES)
def test_resumed_it_is_restored(lab: Restorable, title: str, when: str, live: str) -> None:
    killed(lab, title, when)
    assert lab.rows() == (OLD if live == "old" else NEW)
    assert status(lab.workplace, lab=lab.lab).interrupted is not None
    with pytest.raises(InterruptedRestoreError, match="was cut off") as caught:
        restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert "--resume" in (caught.value.hint or "")
    assert "--abort" in (caught.value.hint or "")
    with pytest.raises(InterruptedRestoreError):
        finalize(lab.workplace, lab=lab.lab)
    resume(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == (NEW, ["before"], set(UNITS))
    assert status(lab.workplace, lab=lab.lab).interrupted is None
    assert len(lab.backups("pre-restore")) == 1
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == OLD


@pytest.mark.parametrize(("title", "when", "live"), CASES)
def test_aborted_it_never_was(lab: Restorable, title: str, when: str, live: str) -> None:
    killed(lab, title, when)
    result = abort(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.fake.running) == (OLD, set(UNITS))
    # A restored database that served is not thrown away: somebody may have worked in it.
    assert lab.ours() == ([] if live == "old" else ["before"])
    assert result.swapped_back == (live == "new")
    assert status(lab.workplace, lab=lab.lab).interrupted is None
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert lab.rows() == NEW


@pytest.mark.parametrize(("title", "when", "live"), CASES)
def test_killed_while_resuming_and_aborted(lab: Restorable, title: str, when: str, live: str) -> None:
    if title == "back up":
        pytest.skip("a resumed restore that has its safety backup makes no other")
    killed(lab, "make the database", "after")
    killed(lab, title, when, lambda one: resume(one.workplace, one.confirmed(), lab=one.lab))
    assert lab.rows() == (OLD if live == "old" else NEW)
    abort(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.fake.running) == (OLD, set(UNITS))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("after_swap", [True, False])
def test_killed_while_aborting_and_aborted_again(lab: Restorable, when: str, after_swap: bool) -> None:
    killed(lab, "give it the name", "after" if after_swap else "before")
    doomed = replace(lab, workplace=replace(lab.workplace, reporter=KillingReporter("go back to", when)))
    assert in_child(lambda: abort(doomed.workplace, lab=doomed.lab)) == 99
    abort(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.fake.running) == (OLD, set(UNITS))
    assert "restore" not in lab.ours()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("title", ["bring it to", "put runs", "stop what writes", "give it the name", "start"])
@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_killed_undo(lab: Restorable, title: str, when: str, way: str) -> None:
    restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    killed(lab, title, when, lambda one: undo(one.workplace, lab=one.lab))
    assert lab.rows() in (OLD, NEW)
    if way == "resume":
        resume(lab.workplace, lab=lab.lab)
    else:
        abort(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == (OLD if way == "resume" else NEW, ["before"], set(UNITS))
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == (NEW if way == "resume" else OLD)


@pytest.mark.parametrize("title", ["make the database", "load", "give it the name", "start"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_where_there_was_no_database(lab: Restorable, title: str, when: str) -> None:
    with lab.access.admin_session() as connection:
        connection.execute(
            psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(lab.access.name))
        )
    killed(lab, title, when)
    resume(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == (NEW, [], set(UNITS))


def test_work_done_in_a_restored_database_survives_an_abort(lab: Restorable) -> None:
    killed(lab, "give it the name", "after")
    lab.add(100)
    result = abort(lab.workplace, lab=lab.lab)
    assert lab.rows() == OLD
    assert result.kept is not None
    undo(lab.workplace, lab=lab.lab)
    assert lab.rows() == [1, 2, 3, 100]


def test_a_pg_restore_that_lives_on_does_not_hurt(lab: Restorable) -> None:
    killed(lab, "load", "after")
    copy = next(name for name in lab.names() if "_restore_" in name)
    with lab.access.session(copy) as survivor:
        abort(lab.workplace, lab=lab.lab)
        with pytest.raises(psycopg.OperationalError):
            survivor.execute("CREATE TABLE late (x int)")
    assert (lab.rows(), lab.ours()) == (OLD, [])


def test_sigterm_goes_back_by_itself(lab: Restorable) -> None:
    """As Ctrl-C does: what was begun is taken back at once, while that is possible."""

    class Impatient(KillingReporter):
        def step(self, title: str, *, total: float | None = None) -> "object":  # type: ignore[override]
            if title.startswith("compare"):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            return super().step(title, total=total)

    workplace = replace(lab.workplace, reporter=Impatient("nothing", "never"))
    with pytest.raises(KeyboardInterrupt):
        restore(workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == (OLD, [], set(UNITS))
    assert status(lab.workplace, lab=lab.lab).interrupted is None


def test_the_backup_vanishes_after_the_kill(lab: Restorable) -> None:
    killed(lab, "load", "before")
    lab.workplace.directory.remove(lab.stored.id)
    with pytest.raises(Exception, match="not there any more"):
        resume(lab.workplace, lab=lab.lab)
    assert (lab.rows(), lab.ours(), lab.fake.running) == (OLD, [], set(UNITS))


@pytest.mark.parametrize("milliseconds", [5, 60, 150, 300, 450, 600, 750, 900, 1050, 1300])
def test_killed_at_any_moment(lab: Restorable, milliseconds: int) -> None:
    """SIGKILL from outside, wherever it is: what is live is whole, and abort and another restore work."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            restore(lab.workplace, lab.stored.id, lab.confirmed(), lab=lab.lab)
        finally:
            os._exit(0)
    time.sleep(milliseconds / 1000)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert lab.rows() in (OLD, NEW)
    if status(lab.workplace, lab=lab.lab).interrupted is not None:
        abort(lab.workplace, lab=lab.lab)
        assert lab.rows() == OLD
    assert "restore" not in lab.ours()
    restore(lab.workplace, lab.stored.id, lab.confirmed(skip_safety=True), lab=lab.lab)
    assert lab.rows() == NEW
