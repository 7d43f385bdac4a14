"""A training that is interrupted ends with the metrics of one that was not, bit for bit, and no step twice."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx
import pytest

from tests.support.studio import Studio, deployed_studio, eventually, write_activations

pytestmark = [pytest.mark.acceptance, pytest.mark.train, pytest.mark.xdist_group("studio")]

STEPS = 1000
VALUES = (
    "step", "loss", "loss_reconstructed", "l0_sparsity", "l1_sparsity", "fvu", "learning_rate", "grad_norm",
    "dead_neurons",
)  # fmt: skip
HYPERPARAMETERS = {
    "architecture": "topk", "k": 8, "dictionary_size": 256, "total_steps": STEPS, "batch_size": 512,
    "log_interval": 5, "checkpoint_interval": 50, "seed": 7, "device": "cpu", "dead_feature_window": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(studio: Studio) -> str:
    return register(studio)


def register(studio: Studio) -> str:
    write_activations(studio.data_dir / "datasets" / "synthetic")
    with studio.api() as api:
        answer = api.post("/datasets", json={"name": "synthetic", "kind": "activations", "path": "datasets/synthetic"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def uninterrupted(studio: Studio, dataset: str) -> list[tuple[Any, ...]]:
    with studio.api() as api:
        training = start(api, dataset)
        wait(api, training, "completed")
        return metrics(api, training)


def start(api: httpx.Client, dataset: str) -> str:
    answer = api.post("/trainings", json={"name": "run", "dataset_id": dataset, "hyperparameters": HYPERPARAMETERS})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def wait(api: httpx.Client, training: str, status: str, seconds: float = 180) -> None:
    eventually(lambda: api.get(f"/trainings/{training}").json().get("status") == status, seconds, f"it is {status}")


def wait_step(api: httpx.Client, training: str, step: int) -> None:
    eventually(lambda: api.get(f"/trainings/{training}").json().get("step", 0) >= step, 60, f"step {step}")


def metrics(api: httpx.Client, training: str) -> list[tuple[Any, ...]]:
    rows = api.get(f"/trainings/{training}/metrics", params={"max_points": 20_000}).json()["items"]
    return [tuple(row[name] for name in VALUES) for row in rows]


def pause_and_resume(studio: Studio, api: httpx.Client, training: str) -> None:
    assert api.post(f"/trainings/{training}/pause").status_code in {200, 202}
    wait(api, training, "paused")
    assert api.post(f"/trainings/{training}/resume").status_code in {200, 202}


def signal_worker(number: signal.Signals) -> Callable[[Studio, httpx.Client, str], None]:
    def interrupt(studio: Studio, api: httpx.Client, training: str) -> None:
        pid = studio.pid("worker-1")
        os.kill(pid, number)
        eventually(lambda: studio.pid("worker-1") != pid, 40, "the worker runs again")

    return interrupt


@pytest.mark.parametrize(
    "interrupt",
    [
        pytest.param(pause_and_resume, id="pause-resume"),
        pytest.param(signal_worker(signal.SIGTERM), id="worker-SIGTERM"),
        pytest.param(signal_worker(signal.SIGKILL), id="worker-SIGKILL"),
    ],
)
def test_interrupted_run_has_the_same_metrics(
    studio: Studio,
    dataset: str,
    uninterrupted: list[tuple[Any, ...]],
    interrupt: Callable[[Studio, httpx.Client, str], None],
) -> None:
    with studio.api() as api:
        training = start(api, dataset)
        wait_step(api, training, 250)
        interrupt(studio, api, training)
        wait(api, training, "completed")
        found = metrics(api, training)
    assert [row[0] for row in found] == [row[0] for row in uninterrupted]
    assert found == uninterrupted


@pytest.mark.parametrize("unit", ["postgres", "redis", "backend-1", "proxy", "beat"])
def test_training_goes_on_when_a_unit_is_killed(
    studio: Studio, dataset: str, uninterrupted: list[tuple[Any, ...]], unit: str
) -> None:
    with studio.api() as api:
        training = start(api, dataset)
        wait_step(api, training, 200)
        before = studio.pid(unit)
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: studio.pid(unit) != before, 10, f"{unit} runs again")
        assert time.monotonic() - killed < 10
        wait(api, training, "completed")
        assert metrics(api, training) == uninterrupted
        assert api.get(f"/trainings/{training}").json()["attempts"] == 0


def test_full_run_has_a_metric_for_every_interval(uninterrupted: list[tuple[Any, ...]]) -> None:
    assert [row[0] for row in uninterrupted] == list(range(5, STEPS + 1, 5))


def test_a_deploy_during_a_training_costs_neither_a_request_nor_a_metric(
    uninterrupted: list[tuple[Any, ...]],
) -> None:
    with deployed_studio() as own:
        dataset = register(own)
        with own.api() as api, Prober(own.url) as prober:
            training = start(api, dataset)
            wait_step(api, training, 100)
            own.ops("deploy", "local", "--set", "server.log_level=debug")
            wait(api, training, "completed")
            assert metrics(api, training) == uninterrupted
            row = api.get(f"/trainings/{training}").json()
        assert (row["attempts"], own.json("status")["release"]) == (0, "r0002")
        assert prober.failures == []
        assert prober.requests > 50


class Prober(threading.Thread):
    """Asks for the list of trainings all the time, on a new connection each, and notes what is not answered."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/api/v1/trainings"
        self._ended = threading.Event()
        self.requests = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(0.05):
            try:
                status = httpx.get(self._url, timeout=15).status_code
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                if status != 200:
                    self.failures.append(str(status))
            self.requests += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
