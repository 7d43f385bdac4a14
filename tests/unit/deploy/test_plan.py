"""What a deploy decides to do, as a table from facts to steps."""

import pytest

from mistudio_ops.domain.plan import Facts, Interrupted, Plan, plan_deploy
from mistudio_ops.domain.release import Release, Source
from mistudio_ops.domain.units import Layout, Unit, UnitKind, UnitState

SOURCE = Source(version="0.1.0", code="c0de", python="3.11", package="/opt")
RELEASE = Release(id="r0001", created="2026-01-01T00:00:00+00:00", source=SOURCE, config="conf")


def unit(name: str, kind: UnitKind, release: str = "r0001") -> Unit:
    return Unit(name=name, kind=kind, argv=("/bin/true",), environment={"MISTUDIO_RELEASE": release}, directory="/")


def layout(release: str = "r0001", *, servers: bool = True, backends: int = 3) -> Layout:
    units = [unit("redis", "redis", ""), unit("postgres", "postgres", "")] if servers else []
    units += [unit(f"backend-{n}", "backend", release) for n in range(1, backends + 1)]
    units += [unit("worker-1", "worker", release), unit("beat", "beat", release), unit("proxy", "proxy", "")]
    return Layout(tuple(units))


def running(units: Layout, **states: str) -> dict[str, UnitState]:
    return {
        u.name: UnitState(u.name, states.get(u.name.replace("-", "_"), "RUNNING"), 1, 0.0, u.digest)
        for u in units.units
    }


def deployed(**changes: object) -> Facts:
    values: dict[str, object] = {
        "wanted": layout(), "source": SOURCE, "config": "conf", "proxy_generation": "g1", "release_id": "r0001",
        "current": RELEASE, "prepared": True, "supervisor_pid": 7, "postgres_initialised": True,
        "present": running(layout()), "serving_generation": "g1",
    }  # fmt: skip
    return Facts(**(values | changes))  # type: ignore[arg-type]


def fresh(**changes: object) -> Facts:
    nothing: dict[str, object] = {
        "current": None, "prepared": False, "supervisor_pid": None, "postgres_initialised": False, "present": {},
        "serving_generation": None,
    }  # fmt: skip
    return deployed(**(nothing | changes))


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def after(plan: Plan, name: str) -> set[str]:
    return set(next(step for step in plan.steps if step.name == name).after)


def test_nothing_to_do_is_an_empty_plan() -> None:
    plan = plan_deploy(deployed())
    assert not plan.changes
    assert not plan.new_release
    assert plan.release == "r0001"


def test_a_first_deploy_starts_everything() -> None:
    plan = plan_deploy(fresh())
    assert set(names(plan)) == {
        "prepare", "supervisor", "initdb", "sync", "redis", "postgres", "backend-1", "backend-2", "backend-3",
        "worker-1", "beat", "migrate", "proxy", "activate", "verify",
    }  # fmt: skip
    assert names(plan)[0] == "prepare"
    assert names(plan)[-1] == "verify"


def test_at_first_backends_load_while_the_database_is_made() -> None:
    plan = plan_deploy(fresh())
    assert after(plan, "backend-1") == after(plan, "worker-1") == {"supervisor"}
    assert after(plan, "migrate") == {"postgres"}
    assert after(plan, "proxy") >= {"backend-1", "backend-2", "backend-3"}


def test_new_code_migrates_first_and_restarts_backends_one_after_the_other() -> None:
    new = layout("r0002")
    plan = plan_deploy(
        deployed(wanted=new, release_id="r0002", source=Source("0.1.0", "new", "3.11", "/opt"), proxy_generation="g2")
    )
    assert plan.new_release
    assert "migrate" in after(plan, "backend-1")
    assert "backend-1" in after(plan, "backend-2")
    assert "backend-2" in after(plan, "backend-3")
    assert after(plan, "worker-1") >= {"migrate", "backend-3"}
    assert {step.name: step.action for step in plan.steps if step.unit} == {
        "backend-1": "restart", "backend-2": "restart", "backend-3": "restart", "worker-1": "restart",
        "beat": "restart", "proxy": "reload",
    }  # fmt: skip


def test_databases_are_not_restarted_for_new_code() -> None:
    plan = plan_deploy(deployed(wanted=layout("r0002"), release_id="r0002", config="other"))
    assert not {"postgres", "redis", "supervisor", "initdb"} & set(names(plan))


@pytest.mark.parametrize("state", ["EXITED", "STOPPED", "FATAL", "BACKOFF"])
def test_a_unit_that_is_down_is_started_and_nothing_else_touched(state: str) -> None:
    plan = plan_deploy(deployed(present=running(layout(), backend_2=state)))
    assert names(plan) == ["prepare", "backend-2", "verify"]
    assert not plan.new_release


def test_a_killed_supervisor_means_starting_all_units_without_migrating() -> None:
    plan = plan_deploy(deployed(supervisor_pid=None, present={}, serving_generation=None))
    assert "supervisor" in names(plan)
    assert "migrate" not in names(plan)
    assert "activate" not in names(plan)
    assert {"postgres", "redis", "backend-1", "worker-1", "beat", "proxy"} <= set(names(plan))


def test_a_process_started_with_another_definition_is_restarted() -> None:
    present = running(layout()) | {"beat": UnitState("beat", "RUNNING", 9, 0.0, "older")}
    plan = plan_deploy(deployed(present=present))
    assert [(s.name, s.action) for s in plan.steps if s.unit] == [("beat", "restart")]


def test_a_proxy_that_serves_another_generation_is_reloaded() -> None:
    plan = plan_deploy(deployed(serving_generation="g0"))
    assert [(s.name, s.action) for s in plan.steps if s.unit] == [("proxy", "reload")]


def test_fewer_backends_stop_the_rest_after_the_proxy_has_let_go() -> None:
    plan = plan_deploy(deployed(wanted=layout(backends=2), config="two", release_id="r0002", proxy_generation="g2"))
    assert after(plan, "stop-backend-3") == {"proxy"}


def test_external_servers_are_neither_created_nor_started() -> None:
    plan = plan_deploy(fresh(wanted=layout(servers=False)))
    assert not {"initdb", "sync", "postgres", "redis"} & set(names(plan))
    assert after(plan, "migrate") == {"prepare"}


def test_a_deploy_cut_off_before_its_release_was_current_is_finished() -> None:
    cut = Interrupted(operation=1, begun="2026-01-01T00:00:00", done=("prepare",), at=("migrate",))
    plan = plan_deploy(deployed(current=None, interrupted=cut))
    assert names(plan) == ["prepare", "migrate", "activate", "verify"]


@pytest.mark.parametrize(
    "facts", [fresh(), deployed(wanted=layout("r0002"), config="x"), deployed(supervisor_pid=None)]
)
def test_every_step_comes_after_those_it_waits_for(facts: Facts) -> None:
    seen: set[str] = set()
    for step in plan_deploy(facts).steps:
        assert set(step.after) <= seen
        seen.add(step.name)
