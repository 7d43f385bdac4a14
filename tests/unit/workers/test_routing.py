"""Each task lands on a queue that a worker consumes, in its environment's own keys."""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import QueueNotFound

from mistudio_server.settings import Settings
from mistudio_server.workers import names
from mistudio_server.workers.app import create_celery
from mistudio_server.workers.beat import SCHEDULE
from mistudio_server.workers.main import run_worker
from mistudio_server.workers.tasks import register_tasks


class Runtime:
    def __init__(self) -> None:
        self.running = ["tr_1"]
        self.wakened = 0

    def wake(self) -> None:
        self.wakened += 1

    def submit(self, work: Any) -> Any:
        class Done:
            def result(self, _seconds: float) -> Any:
                return asyncio.run(work())

        return Done()

    async def reap(self) -> list[str]:
        return ["tr_2"]

    async def premake_partitions(self) -> list[str]:
        return ["p"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0", redis_prefix="lab", mistudio_instance="worker-7"
    )  # type: ignore[arg-type]


@pytest.fixture
def app(settings: Settings) -> Celery:
    app = create_celery(settings)
    register_tasks(app, settings, Runtime(), pid=42)
    return app


def registered(app: Celery) -> list[str]:
    return sorted(name for name in app.tasks if not name.startswith("celery."))


def test_every_task_is_routed_to_a_queue_that_a_worker_consumes_by_default(app: Celery) -> None:
    consumed = inspect.signature(run_worker).parameters["queues"].default
    assert registered(app) == sorted(names.ROUTES)
    for name in registered(app):
        assert name.startswith("mistudio.")
        queue = app.amqp.router.route({}, name)["queue"]
        assert queue.name in consumed
        assert queue.name in {declared.name for declared in app.conf.task_queues}


def test_wake_ups_have_a_queue_of_their_kind(app: Celery) -> None:
    for kind in names.JOB_KINDS:
        assert app.amqp.router.route({"queue": kind}, names.RUN_NEXT)["queue"].name == kind


def test_a_task_without_a_route_is_an_error_of_its_sender(app: Celery) -> None:
    with pytest.raises(QueueNotFound):
        app.amqp.router.route({}, "mistudio.nobody.knows")


def test_beat_sends_only_known_tasks_and_lets_them_expire(app: Celery) -> None:
    for entry in SCHEDULE.values():
        assert entry["task"] in registered(app)
        assert entry["options"]["queue"] == names.ROUTES[entry["task"]]["queue"]
        assert entry["options"]["expires"] > 0


def test_keys_carry_the_prefix_and_only_json_is_taken(app: Celery) -> None:
    assert app.conf.broker_transport_options["global_keyprefix"] == "lab:celery:"
    assert app.conf.result_backend_transport_options["global_keyprefix"] == "lab:celery:"
    assert app.conf.accept_content == ["json"]


def test_ping_says_who_answers(app: Celery) -> None:
    answer = app.tasks[names.PING].run()
    assert answer == {"instance": "worker-7", "release": "dev", "pid": 42, "running": ["tr_1"]}
    assert app.tasks[names.PING].ignore_result is False


def test_maintenance_runs_in_the_supervisor(app: Celery) -> None:
    assert app.tasks[names.REAP_RUNS].run() == ["tr_2"]
    assert app.tasks[names.PREMAKE_PARTITIONS].run() == ["p"]
