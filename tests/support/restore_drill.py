"""The restore drill: one story, told on every kind of environment.

A training is paused, a backup made, the training goes on for a while, a table is dropped. A restore brings every row of
the moment of the backup back, and the training goes on from its checkpoint to its end without a gap or a double.
"""

import time
from typing import Any

import httpx
import psycopg
from psycopg import sql

from tests.support.studio import Studio, eventually, write_activations

STEPS = 600
INTERVAL = 5
HYPERPARAMETERS = {
    "architecture": "topk", "k": 8, "dictionary_size": 256, "total_steps": STEPS, "batch_size": 512,
    "log_interval": INTERVAL, "checkpoint_interval": 50, "seed": 7, "device": "cpu", "dead_feature_window": 50,
}  # fmt: skip


def drill(studio: Studio, database_url: str, *, name: str = "mistudio") -> None:
    """Tell the story. ``database_url`` is a libpq URL of the studio's database ``name``."""
    with studio.api() as api:
        training = start_training(studio, api)
        pause(api, training, after=150)
        before = settled_rows(database_url)
        assert len(before["training_metrics"]) >= 30
        studio.ops("backup", "--include", "checkpoints")

        resume(api, training)
        wait_step(api, training, 300)
        pause(api, training, after=300)
        lose_a_table(database_url)
        studio.ops("restore", "latest", "--confirm", name)

        found = differences(before, all_rows(database_url))
        assert not found, found
        assert status(api, training) == "paused"
        resume(api, training)
        wait_status(api, training, "completed")
        assert steps(api, training) == list(range(INTERVAL, STEPS + 1, INTERVAL))
    studio.ops("health", "--wait", "30")


def start_training(studio: Studio, api: httpx.Client) -> str:
    """Register activations and start a training on them; return its id."""
    write_activations(studio.data_dir / "datasets" / "synthetic")
    dataset = api.post("/datasets", json={"name": "drill", "kind": "activations", "path": "datasets/synthetic"})
    assert dataset.status_code == 201, dataset.text
    body = {"name": "drill", "dataset_id": dataset.json()["id"], "hyperparameters": HYPERPARAMETERS}
    answer = api.post("/trainings", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def pause(api: httpx.Client, training: str, *, after: int) -> None:
    """Pause it when it has come to that step."""
    wait_step(api, training, after)
    assert api.post(f"/trainings/{training}/pause").status_code in {200, 202}
    wait_status(api, training, "paused")


def resume(api: httpx.Client, training: str) -> None:
    """Let it go on."""
    assert api.post(f"/trainings/{training}/resume").status_code in {200, 202}


def status(api: httpx.Client, training: str) -> str:
    """Return the training's status."""
    return str(api.get(f"/trainings/{training}").json()["status"])


def wait_status(api: httpx.Client, training: str, wanted: str) -> None:
    """Wait until it has that status."""
    eventually(lambda: api.get(f"/trainings/{training}").json().get("status") == wanted, 180, f"it is {wanted}")


def wait_step(api: httpx.Client, training: str, step: int) -> None:
    """Wait until it has come to that step."""
    eventually(lambda: api.get(f"/trainings/{training}").json().get("step", 0) >= step, 90, f"step {step}")


def steps(api: httpx.Client, training: str) -> list[int]:
    """Return the steps that have metrics, as the API gives them."""
    answer = api.get(f"/trainings/{training}/metrics", params={"max_points": 20_000})
    return [row["step"] for row in answer.json()["items"]]


def differences(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> list[str]:
    """Say what is missing and what is new, for a person."""
    told = []
    for table in sorted({*before, *after}):
        missing = [row for row in before.get(table, []) if row not in after.get(table, [])]
        new = [row for row in after.get(table, []) if row not in before.get(table, [])]
        if missing or new:
            told.append(f"{table}: missing {len(missing)} {missing[:1]}, new {len(new)} {new[:1]}")
    return told


def lose_a_table(database_url: str) -> None:
    """What a person does at the wrong prompt."""
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("DROP TABLE training_metrics CASCADE")


def settled_rows(database_url: str) -> dict[str, list[Any]]:
    """Return every row once nothing is written any more: a worker gives its claim up after the training is paused."""
    rows: dict[str, list[Any]] = {}
    while rows != (rows := all_rows(database_url)):
        time.sleep(1)
    return rows


def all_rows(database_url: str) -> dict[str, list[Any]]:
    """Return every row of every table as text, partitions by their parent's name.

    A restore raises the number of each training's claim, on purpose: a worker of the time before may not write.
    """
    with psycopg.connect(database_url) as session:
        session.execute("SET TimeZone = 'UTC'")
        names = session.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        return {
            name: session.execute(
                sql.SQL("SELECT (to_jsonb(t) - 'claim')::text FROM {} AS t ORDER BY 1").format(sql.Identifier(name))
            ).fetchall()
            for (name,) in names
        }
