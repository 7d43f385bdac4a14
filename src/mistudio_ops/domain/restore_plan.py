"""The plan of a restore: what is lost, what is done in which order, and what a restore that was cut off needs.

Everything that takes time happens beside the live database. What is live changes in one transaction, the swap, so that
the names of the databases say on which side of it a restore was killed. Pure; tested with tables.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["restore", "undo"]
StepName = Literal[
    "safety", "copy", "load", "compare", "migrate", "settle", "stage", "stop", "place", "swap", "start", "health"
]
#: On which side of the swap a restore stands.
Phase = Literal["before", "after"]

_TITLES: dict[StepName, str] = {
    "safety": "back up {database} as it is now",
    "copy": "make the database {incoming}",
    "load": "load {backup} into it, while the lab runs on",
    "compare": "compare it with the backup",
    "migrate": "bring it to this release's schema",
    "settle": "put runs that were in progress back into the queue",
    "stage": "lay checkpoint files ready",
    "stop": "stop what writes: {units}",
    "place": "put checkpoint files in their places",
    "swap": "give it the name {database}, and the current one the name {aside}",
    "start": "start {units}",
    "health": "ask for health",
}
#: What is finished beside the live database and need not be done again.
_KEPT: frozenset[StepName] = frozenset({"safety", "copy", "load", "compare", "stage"})


@dataclass(frozen=True, slots=True)
class TableLoss:
    """Rows of one table now and in the backup. ``now`` is None where the table cannot be counted: it is gone."""

    table: str
    now: int | None
    backup: int | None


@dataclass(frozen=True, slots=True)
class RunningTraining:
    """A training in progress, which goes back to where the backup has it."""

    id: str
    name: str
    status: str
    step: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost by restoring: what came after ``backup_id``. ``problem`` says why it cannot be told."""

    backup_id: str
    database: str
    minutes: float
    tables: tuple[TableLoss, ...] = ()
    running: tuple[RunningTraining, ...] = ()
    problem: str | None = None

    @property
    def rows(self) -> int:
        """Rows that are there now and not in the backup, table by table."""
        return sum(max(0, (one.now or 0) - (one.backup or 0)) for one in self.tables)


@dataclass(frozen=True, slots=True)
class RestoreFacts:
    """What a restore finds. ``units`` run now; ``failing`` are the health checks that fail already."""

    backup: str
    database: str
    token: str
    incoming: str
    aside: str
    exists: bool
    units: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    checkpoints: bool = False
    skip_safety: bool = False
    jobs: int = 1


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """One step; they run one after the other."""

    name: StepName
    title: str


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """``database`` is live, ``incoming`` takes its name, and it becomes ``aside``.

    ``existed`` is False when there was no live database to begin with.
    """

    kind: Kind
    token: str
    backup: str
    database: str
    incoming: str
    aside: str
    existed: bool
    steps: tuple[RestoreStep, ...]
    units: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    jobs: int = 1

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "RestorePlan":
        """Return the plan of which ``document`` is the JSON form, as the journal keeps it."""
        lists = {name: tuple(document[name]) for name in ("units", "failing")}
        steps = tuple(RestoreStep(**step) for step in document["steps"])
        return cls(**{**document, **lists, "steps": steps})


@dataclass(frozen=True, slots=True)
class GoingBack:
    """What leads back to the database from before: ``swap`` the names back, or ``drop`` a copy that never served."""

    swap: bool
    drop: bool
    keeps_restored: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """A restore that was cut off: its plan, when it began, and which steps are done and begun."""

    operation: int
    plan: RestorePlan
    begun: str
    done: tuple[str, ...] = ()
    at: tuple[str, ...] = ()

    @property
    def begun_steps(self) -> tuple[str, ...]:
        """Every step that was begun, whatever became of it."""
        return (*self.done, *self.at)


def plan_restore(facts: RestoreFacts) -> RestorePlan:
    """Return the steps from ``facts`` to a lab that runs on the backup."""
    names: list[StepName] = ["copy", "load", "compare", "migrate", "settle"]
    if facts.exists and not facts.skip_safety:
        names.insert(0, "safety")
    if facts.checkpoints:
        names.append("stage")
    names += ["stop"] if facts.units else []
    names += ["place"] if facts.checkpoints else []
    names += ["swap"]
    names += ["start", "health"] if facts.units else []
    return _plan("restore", facts, names)


def plan_undo(facts: RestoreFacts) -> RestorePlan:
    """Return the steps that make the database from before a restore live again; the restored one is kept aside."""
    names: list[StepName] = ["migrate", "settle", *(["stop"] if facts.units else []), "swap"]  # type: ignore[list-item]
    names += ["start", "health"] if facts.units else []
    return _plan("undo", facts, names)


def phase(plan: RestorePlan, databases: Collection[str], begun: Collection[str]) -> Phase:
    """Return on which side of the swap a restore stands, from the databases' names.

    ``begun`` are the steps that the journal knows: they decide only where there was no database to set aside.
    """
    if plan.incoming in databases:
        return "before"
    if plan.aside in databases:
        return "after"
    return "after" if not plan.existed and "swap" in begun and plan.database in databases else "before"


def remaining(plan: RestorePlan, at: Phase, done: Collection[str], *, has_copy: bool) -> tuple[RestoreStep, ...]:
    """Return what is left to do. A copy that was not loaded to its end is thrown away and loaded again."""
    if at == "after":
        return tuple(step for step in plan.steps if step.name in {"start", "health"})
    kept = set(_KEPT & set(done))
    if plan.kind == "restore" and not (has_copy and "load" in done):
        kept -= {"copy", "load", "compare"}
    return tuple(step for step in plan.steps if step.name not in kept)


def going_back(plan: RestorePlan, at: Phase) -> GoingBack:
    """Return how to get back to the database from before. Where there was none, the restored one stays."""
    if at == "before":
        return GoingBack(swap=False, drop=plan.kind == "restore")
    if not plan.existed:
        return GoingBack(swap=False, drop=False, keeps_restored=True)
    return GoingBack(swap=True, drop=False)


def _plan(kind: Kind, facts: RestoreFacts, names: list[StepName]) -> RestorePlan:
    values = {
        "database": facts.database,
        "incoming": facts.incoming,
        "aside": facts.aside,
        "backup": facts.backup,
        "units": ", ".join(facts.units),
    }
    steps = tuple(RestoreStep(name, _TITLES[name].format_map(values)) for name in names)
    return RestorePlan(
        kind, facts.token, facts.backup, facts.database, facts.incoming, facts.aside, facts.exists, steps, facts.units,
        facts.failing, facts.jobs,
    )  # fmt: skip
