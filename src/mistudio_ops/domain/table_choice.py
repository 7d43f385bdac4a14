"""Which rows of which tables come back out of a backup, and in what order. Pure values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mistudio_ops.errors import UsageError

#: Rows move from one to the other: what is in one of them is not missing in the other.
SIBLINGS = {"training_metrics": "training_metrics_archive", "training_metrics_archive": "training_metrics"}
_ITS_DATASETS = """id IN (
    SELECT dataset_id FROM trainings WHERE id = {id} UNION ALL
    SELECT d.text_dataset_id FROM datasets d JOIN trainings t ON t.dataset_id = d.id WHERE t.id = {id}
)"""
_ITS_MODELS = """id IN (
    SELECT d.model_id FROM datasets d JOIN trainings t ON t.dataset_id = d.id WHERE t.id = {id}
)"""
#: Table, condition, and whether only missing rows come back.
_OF_A_TRAINING = (
    ("models", _ITS_MODELS, True),
    ("datasets", _ITS_DATASETS, True),
    ("trainings", "id = {id}", False),
    ("checkpoints", "training_id = {id}", False),
    ("training_metrics", "training_id = {id}", False),
    ("training_metrics_archive", "training_id = {id}", False),
    ("features", "training_id = {id}", False),
    ("feature_activations", "feature_id IN (SELECT id FROM features WHERE training_id = {id})", False),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of one table. ``where`` is SQL, None for all; ``only_missing`` leaves rows that are there even when the
    others are replaced.
    """

    table: str
    where: str | None = None
    only_missing: bool = False


def chosen(tables: Iterable[str], where: str | None, training: str | None) -> tuple[Choice, ...]:
    """Return the choices that the command line means.

    Raises:
        UsageError: they do not fit each other.
    """
    names = tuple(dict.fromkeys(tables))
    if training is not None:
        if names or where is not None:
            raise UsageError("--training brings its own tables: leave --table and --where out")
        return training_choices(training)
    if not names:
        raise UsageError("no table is named", hint="--table NAME or --training ID")
    if where is not None and len(names) > 1:
        raise UsageError("--where fits one --table", hint="run it once for each table")
    return tuple(Choice(name, where) for name in names)


def training_choices(training: str) -> tuple[Choice, ...]:
    """Return everything that belongs to a training; its dataset and model too, where they are missing."""
    literal = "'" + training.replace("'", "''") + "'"
    return tuple(Choice(table, where.replace("{id}", literal), missing) for table, where, missing in _OF_A_TRAINING)


def in_order(references: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Return the tables so that each comes after those that its foreign keys refer to; circles as they are named."""
    done: list[str] = []
    waiting = dict(references)
    while waiting:
        ready = [name for name, needs in waiting.items() if not (needs - {name}) & waiting.keys()]
        for name in ready or [next(iter(waiting))]:
            done.append(name)
            del waiting[name]
    return tuple(done)
