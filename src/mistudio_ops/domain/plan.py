"""The plan of a deploy: what there is, what is wanted, and so what has to be done. Pure; tested with tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mistudio_ops.domain.release import Release, Source
from mistudio_ops.domain.units import Layout, Unit, UnitState, kind_of

Action = Literal[
    "prepare", "boot", "initialise", "sync", "start", "restart", "reload", "migrate", "stop", "activate", "verify"
]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A deploy that was killed: it began at ``begun`` and had these steps done or begun."""

    operation: int
    begun: str
    done: tuple[str, ...]
    at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a deploy finds. ``present`` holds what the supervisor knows, by name."""

    wanted: Layout
    source: Source
    config: str
    proxy_generation: str
    release_id: str
    current: Release | None = None
    prepared: bool = False
    supervisor_pid: int | None = None
    postgres_initialised: bool = False
    present: Mapping[str, UnitState] = field(default_factory=dict)
    serving_generation: str | None = None
    interrupted: Interrupted | None = None

    @property
    def is_new_release(self) -> bool:
        """True when code or configuration differ from the current release's."""
        return self.current is None or not self.current.same_as(self.source, self.config)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step: it begins as soon as all steps in ``after`` have ended."""

    name: str
    action: Action
    title: str
    after: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy will do, in an order that respects ``after``."""

    release: str
    new_release: bool
    steps: tuple[PlannedStep, ...] = ()

    @property
    def changes(self) -> bool:
        """False when everything is as wanted already."""
        return bool(self.steps)


def plan_deploy(facts: Facts) -> Plan:
    """Return the steps from ``facts`` to what is wanted."""
    steps: list[PlannedStep] = []
    work = _unit_steps(facts)
    if facts.is_new_release or work or facts.supervisor_pid is None or not facts.prepared:
        steps = _assemble(facts, work)
    return Plan(facts.release_id, facts.is_new_release, tuple(steps))


def _assemble(facts: Facts, work: list[PlannedStep]) -> list[PlannedStep]:
    steps = [PlannedStep("prepare", "prepare", "folders, passwords and programs")]
    if facts.supervisor_pid is None:
        steps.append(PlannedStep("supervisor", "boot", "start supervisord", ("prepare",)))
    if facts.wanted.of("postgres") and not facts.postgres_initialised:
        steps.append(PlannedStep("initdb", "initialise", "create the database cluster", ("prepare",)))
        steps.append(PlannedStep("sync", "sync", "write the new cluster through to the disk", ("initdb",)))
    steps += work
    if facts.is_new_release:
        steps.append(PlannedStep("migrate", "migrate", "migrate the database", ("postgres",)))
        everything = tuple(step.name for step in steps)
        steps.append(
            PlannedStep("activate", "activate", f"record {facts.release_id} as the current release", everything)
        )
    steps.append(PlannedStep("verify", "verify", "ask for health through the proxy", tuple(s.name for s in steps)))
    names = {step.name for step in steps}
    return _ordered([_only_known(step, names) for step in steps])


def _only_known(step: PlannedStep, names: set[str]) -> PlannedStep:
    after = tuple(name for name in step.after if name in names)
    return PlannedStep(
        step.name, step.action, step.title, after or (("prepare",) * (step.name != "prepare")), step.unit
    )


def _ordered(steps: list[PlannedStep]) -> list[PlannedStep]:
    done: list[PlannedStep] = []
    left = list(steps)
    while left:
        ready = [step for step in left if set(step.after) <= {other.name for other in done}]
        if not ready:
            raise ValueError(f"steps wait for each other: {', '.join(step.name for step in left)}")
        done += ready
        left = [step for step in left if step not in ready]
    return done


def _unit_steps(facts: Facts) -> list[PlannedStep]:
    steps: list[PlannedStep] = []
    rolling: str | None = None
    # At first nobody serves yet, so processes may load their libraries (1.5 s of a core each) while the database is
    # created and migrated: readiness waits for both. Where an older release serves, the schema comes first.
    first = facts.current is None
    for unit in facts.wanted.units:
        step = _unit_step(facts, unit, first=first, rolling=rolling)
        if step is None:
            continue
        if unit.kind == "backend" and step.action == "restart":
            rolling = step.name
        steps.append(step)
    return steps + _stops(facts)


def _unit_step(facts: Facts, unit: Unit, *, first: bool, rolling: str | None) -> PlannedStep | None:
    action = _action(facts, unit)
    if action is None:
        return None
    return PlannedStep(unit.name, action, _title(action, unit), _after(facts, unit, first, rolling), unit.name)


def _action(facts: Facts, unit: Unit) -> Action | None:
    state = facts.present.get(unit.name)
    if state is None or not state.running:
        return "start"
    if state.digest != unit.digest:
        return "restart"
    if unit.kind == "proxy" and facts.serving_generation != facts.proxy_generation:
        return "reload"
    return None


def _title(action: Action, unit: Unit) -> str:
    what = {"backend": ", wait until it is ready", "worker": ", wait until it answers"}.get(unit.kind, "")
    if action == "restart" and unit.kind == "worker":
        return f"restart {unit.name} (trainings checkpoint and are requeued){what}"
    return f"{action} {unit.name}{what}"


def _after(facts: Facts, unit: Unit, first: bool, rolling: str | None) -> tuple[str, ...]:
    servers: tuple[str, ...] = ("supervisor", "redis", "postgres")
    if unit.kind == "postgres":
        return ("supervisor", "initdb")
    if unit.kind == "redis":
        return ("supervisor",)
    if unit.kind == "proxy":
        return ("supervisor", *(backend.name for backend in facts.wanted.of("backend")))
    if first:
        return ("supervisor",)
    if unit.kind == "backend":
        return (*servers, "migrate", *((rolling,) if rolling else ()))
    # Jobs come back on the new code when the new API is there to show them.
    return (*servers, "migrate", *(backend.name for backend in facts.wanted.of("backend")))


def _stops(facts: Facts) -> list[PlannedStep]:
    wanted = {unit.name for unit in facts.wanted.units}
    return [
        PlannedStep(f"stop-{name}", "stop", f"stop {name}, which is no longer wanted", ("proxy",), name)
        for name in facts.present
        if name not in wanted and kind_of(name) is not None
    ]
