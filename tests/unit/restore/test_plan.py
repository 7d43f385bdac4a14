"""What a restore plans, and where one that was killed stands: tables, no I/O."""

import itertools
import json
from dataclasses import asdict, replace

import pytest

from mistudio_ops.domain.restore_plan import (
    GoingBack,
    Loss,
    Phase,
    RestoreFacts,
    RestorePlan,
    TableLoss,
    going_back,
    phase,
    plan_restore,
    plan_undo,
    remaining,
)
from mistudio_ops.operations.backup.loading import usable_jobs

FACTS = RestoreFacts(
    backup="B", database="db", token="0123abcd", incoming="db_restore_0123abcd", aside="db_before_0123abcd",
    exists=True, units=("backend-1", "worker-1", "beat"), checkpoints=True,
)  # fmt: skip
ALL = ["safety", "copy", "load", "compare", "migrate", "settle", "stage", "stop", "place", "swap", "start", "health"]


def names(plan: RestorePlan) -> list[str]:
    return [step.name for step in plan.steps]


def test_the_order_of_a_whole_restore() -> None:
    assert names(plan_restore(FACTS)) == ALL


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"exists": False}, {"safety"}),
        ({"skip_safety": True}, {"safety"}),
        ({"checkpoints": False}, {"stage", "place"}),
        ({"units": ()}, {"stop", "start", "health"}),
        ({"units": (), "checkpoints": False, "exists": False}, {"stop", "start", "health", "stage", "place", "safety"}),
    ],
)
def test_steps_that_are_not_needed_are_left_out(changes: dict[str, object], without: set[str]) -> None:
    plan = plan_restore(replace(FACTS, **changes))  # type: ignore[arg-type]
    assert names(plan) == [name for name in ALL if name not in without]


@pytest.mark.parametrize("units", [("backend-1",), ()])
def test_everything_that_takes_time_comes_before_the_writers_stop(units: tuple[str, ...]) -> None:
    order = names(plan_restore(replace(FACTS, units=units)))
    down = order.index("stop" if units else "place")
    assert set(order[:down]) == {"safety", "copy", "load", "compare", "migrate", "settle", "stage"}


def test_an_undo_loads_nothing() -> None:
    assert names(plan_undo(FACTS)) == ["migrate", "settle", "stop", "swap", "start", "health"]


def test_titles_name_what_they_are_about() -> None:
    titles = {step.name: step.title for step in plan_restore(FACTS).steps}
    assert titles["stop"] == "stop what writes: backend-1, worker-1, beat"
    assert titles["swap"] == "give it the name db, and the current one the name db_before_0123abcd"


@pytest.mark.parametrize("plan", [plan_restore(FACTS), plan_undo(replace(FACTS, failing=("api",)))])
def test_a_plan_comes_back_from_the_journal_as_it_was(plan: RestorePlan) -> None:
    assert RestorePlan.parse(json.loads(json.dumps(asdict(plan)))) == plan


LIVE, COPY, ASIDE = "db", "db_restore_0123abcd", "db_before_0123abcd"


@pytest.mark.parametrize(
    ("databases", "existed", "begun", "expected"),
    [
        # what was there at the beginning
        ({LIVE}, True, (), "before"),
        ({LIVE}, True, ("safety",), "before"),
        (set(), False, (), "before"),
        # the copy is being made
        ({LIVE, COPY}, True, ("safety", "copy", "load"), "before"),
        ({COPY}, False, ("copy", "load"), "before"),
        # the swap was begun and did not happen: it is one transaction
        ({LIVE, COPY}, True, ("swap",), "before"),
        ({COPY}, False, ("swap",), "before"),
        # it happened
        ({LIVE, ASIDE}, True, ("swap",), "after"),
        ({LIVE}, False, ("swap",), "after"),
        # it happened, and a power cut took the journal's last line
        ({LIVE, ASIDE}, True, ("stop",), "after"),
        ({LIVE}, False, ("stop",), "before"),
        # a deploy made an empty database where there was none, and that was set aside
        ({LIVE, ASIDE}, False, ("swap",), "after"),
        # it was swapped back, and the copy dropped
        ({LIVE}, True, ("swap", "start", "health"), "before"),
        # it was swapped back, and killed before the copy was dropped
        ({LIVE, COPY}, True, ("swap", "start", "health"), "before"),
    ],
)
def test_the_databases_say_where_it_stands(
    databases: set[str], existed: bool, begun: tuple[str, ...], expected: Phase
) -> None:
    plan = plan_restore(replace(FACTS, exists=existed))
    assert phase(plan, databases | {"postgres", "other"}, begun) == expected


@pytest.mark.parametrize("cut", range(len(ALL) + 1))
def test_what_is_left_after_a_cut_at_every_step(cut: int) -> None:
    plan, done = plan_restore(FACTS), ALL[:cut]
    at: Phase = "after" if "swap" in done else "before"
    has_copy = "copy" in done and at == "before"
    left = [step.name for step in remaining(plan, at, done, has_copy=has_copy)]
    if at == "after":
        assert left == ["start", "health"]
        return
    # Whatever was done, what follows the swap and the swap itself are done again, in order.
    assert left == [name for name in ALL if name in left]
    assert left[-5:] == ["stop", "place", "swap", "start", "health"]
    assert {"migrate", "settle"} <= set(left)
    assert ("safety" in left) == ("safety" not in done)
    assert ("load" in left) == ("load" not in done)
    # A copy that was not loaded to its end is made anew, not loaded into.
    assert ("copy" in left) == ("load" not in done)
    assert ("compare" in left) == ("compare" not in done)


def test_a_copy_that_vanished_is_loaded_again() -> None:
    left = remaining(plan_restore(FACTS), "before", ALL[:7], has_copy=False)
    assert [step.name for step in left][:3] == ["copy", "load", "compare"]


@pytest.mark.parametrize(
    ("kind", "at", "existed", "expected"),
    [
        ("restore", "before", True, GoingBack(swap=False, drop=True)),
        ("restore", "before", False, GoingBack(swap=False, drop=True)),
        ("restore", "after", True, GoingBack(swap=True, drop=False)),
        ("restore", "after", False, GoingBack(swap=False, drop=False, keeps_restored=True)),
        ("undo", "before", True, GoingBack(swap=False, drop=False)),
        ("undo", "after", True, GoingBack(swap=True, drop=False)),
    ],
)
def test_the_way_back(kind: str, at: Phase, existed: bool, expected: GoingBack) -> None:
    make = plan_restore if kind == "restore" else plan_undo
    assert going_back(make(replace(FACTS, exists=existed)), at) == expected


def test_no_way_back_ever_drops_a_database_that_served() -> None:
    for kind, existed in itertools.product((plan_restore, plan_undo), (True, False)):
        assert not going_back(kind(replace(FACTS, exists=existed)), "after").drop


def test_rows_lost_are_counted_table_by_table() -> None:
    tables = (TableLoss("a", 5, 3), TableLoss("b", 1, 9), TableLoss("c", None, 4), TableLoss("d", 2, None))
    assert Loss("B", "db", 1.0, tables).rows == 4


@pytest.mark.parametrize(
    ("wanted", "processors", "jobs"), [(None, 1, 1), (None, 2, 1), (None, 4, 2), (None, 64, 4), (3, 2, 3)]
)
def test_connections_to_load_with(wanted: int | None, processors: int, jobs: int) -> None:
    assert usable_jobs(wanted, processors=processors) == jobs
