"""A real worker process: pings, signals, a dead store, strange messages."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from celery import Celery
from pydantic import SecretStr

from mistudio_server.db.engine import Database
from mistudio_server.settings import Settings
from mistudio_server.workers.app import create_celery
from mistudio_server.workers.dispatch import CeleryJobQueue
from mistudio_server.workers.names import PING, QUEUES, REAP_RUNS
from tests.support import fake_child
from tests.support.runs import (
    WorkerProcess,
    alive,
    metrics,
    plan,
    queue_training,
    row,
    starts,
    wait_for,
    wait_status,
)
from tests.support.sockets import until
from tests.support.store import own_store

pytestmark = pytest.mark.integration

WHOLE = [(step, fake_child.loss_at(step)) for step in range(1, 61)]


def ping(settings: Settings, seconds: float = 30) -> Any:
    """Send a ping and return the answer."""
    app: Celery = create_celery(settings)
    try:
        return app.send_task(PING, expires=seconds).get(timeout=seconds, interval=0.02)
    finally:
        app.close()


async def wait_for_line(worker: WorkerProcess, found: Callable[[dict[str, Any]], bool]) -> None:
    await until(lambda: any(found(line) for line in worker.lines()), 15)


async def test_answers_pings_while_it_trains_and_leaves_in_order(
    database: Database, worker_settings: Settings, folder: Path, redis_url: str
) -> None:
    plan(folder, steps_per_second=20)
    own_database = redis_url.removesuffix("/0") + "/7"  # whose keys are all this worker's
    worker_settings = worker_settings.model_copy(update={"redis_url": SecretStr(own_database)})
    await queue_training(database, worker_settings)
    with WorkerProcess(worker_settings, folder) as worker:
        await wait_for(database, "tr_1", lambda found: found["step"] > 1)
        answer = await asyncio.to_thread(ping, worker_settings)
        assert answer == {
            "instance": "worker-1", "release": "dev", "pid": worker.process.pid, "running": ["tr_1"],
        }  # fmt: skip
        rss = resident_mb(worker.process.pid)
        began = time.monotonic()
        assert await worker.end() == 0
        assert time.monotonic() - began < 15
    back = await row(database, "tr_1")
    assert (back["status"], back["attempts"]) == ("queued", 0)
    assert not alive(starts(folder)[0][0])
    assert rss < 100, f"{rss:.0f} MB"
    async with redis.asyncio.Redis.from_url(own_database) as store:
        keys = [key.decode() async for key in store.scan_iter("*")]
    assert keys
    assert [key for key in keys if not key.startswith(f"{worker_settings.redis_prefix}:")] == []
    lines = worker.lines()
    assert {line["request_id"] for line in lines if line["event"] == "training_started"} == {"req_tr_1"}


async def test_a_wake_up_carries_the_request_and_is_quicker_than_looking(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    settings = worker_settings.model_copy(update={"log_level": "debug"})
    queue = CeleryJobQueue(settings)
    with WorkerProcess(settings, folder) as worker:
        await asyncio.to_thread(ping, worker_settings)
        await queue_training(database, worker_settings)
        await queue.wake("training", "req_of_a_person")
        await wait_status(database, "tr_1", "completed")
        assert queue.healthy
    queue.close()
    (woken,) = [line for line in worker.lines() if line["event"] == "wakened"]
    assert woken["request_id"] == "req_of_a_person"


async def test_a_killed_worker_takes_its_child_along_and_its_successor_goes_on(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    plan(folder, steps_per_second=50)
    await queue_training(database, worker_settings)
    with WorkerProcess(worker_settings, folder) as worker:
        await wait_for(database, "tr_1", lambda found: found["step"] > 23)
        await worker.end(signal.SIGKILL)
    left = await row(database, "tr_1")
    assert (left["status"], left["worker"]) == ("running", "worker-1")
    await until(lambda: not alive(starts(folder)[0][0]))
    began = time.monotonic()
    with WorkerProcess(worker_settings, folder):
        taken = await wait_for(database, "tr_1", lambda found: found["claim"] == 2)
        assert time.monotonic() - began < 20
        assert taken["attempts"] == 1
        await wait_status(database, "tr_1", "completed")
    assert len({step for step, _ in await metrics(database)}) == 60
    assert await metrics(database) == WHOLE


async def test_a_silent_workers_run_is_reaped_by_another(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    plan(folder, steps_per_second=50)
    await queue_training(database, worker_settings)
    with WorkerProcess(worker_settings, folder) as worker:
        await wait_for(database, "tr_1", lambda found: found["step"] > 3)
        await worker.end(signal.SIGKILL)
    other = worker_settings.model_copy(update={"mistudio_instance": "worker-2"})
    app = create_celery(other)
    with WorkerProcess(other, folder):
        await asyncio.sleep(1.1)
        app.send_task(REAP_RUNS)
        done = await wait_status(database, "tr_1", "completed")
    app.close()
    assert (done["worker"], done["claim"]) == ("worker-2", 2)
    assert await metrics(database) == WHOLE


async def test_trains_without_redis_and_answers_soon_after_its_return(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    plan(folder, steps_per_second=25)
    await queue_training(database, worker_settings)
    with own_store() as store:
        store.kill()
        url = SecretStr(store.url)
        settings = worker_settings.model_copy(update={"redis_url": url, "redis_ws_url": url})
        queue = CeleryJobQueue(settings)
        with WorkerProcess(settings, folder) as worker:
            await wait_for(database, "tr_1", lambda found: found["step"] > 1)
            began = time.monotonic()
            for _ in range(3):
                await queue.wake("training", None)
            assert time.monotonic() - began < 3
            assert not queue.healthy
            store.start()
            assert (await asyncio.to_thread(ping, settings, 15))["instance"] == "worker-1"
            store.kill()
            await wait_status(database, "tr_1", "completed")
            store.start()
            assert (await asyncio.to_thread(ping, settings, 15))["running"] == []
            store.kill()
            assert await worker.end() == 0
        queue.close()
    assert await metrics(database) == WHOLE
    began_lines = [line for line in worker.lines() if line["event"] == "outage_began"]
    assert len([line for line in began_lines if line["what"] == "celery broker"]) <= 3


async def test_poison_and_unknown_messages_do_no_harm(worker_settings: Settings, folder: Path, redis_url: str) -> None:
    app = create_celery(worker_settings)
    with WorkerProcess(worker_settings, folder) as worker:
        await asyncio.to_thread(ping, worker_settings)
        for queue in QUEUES:
            app.send_task("mistudio.from.another.release", queue=queue, args=[1])
            app.send_task("mistudio.jobs.run_next", queue=queue, args=["training", "too", "many"])
        with app.connection() as connection, connection.channel() as channel:
            message = channel.prepare_message("gASVBQ==", content_type="application/x-python-serialize")
            channel.basic_publish(message, exchange="", routing_key="maintenance")
            channel.client.lpush("maintenance", "this is no message", json.dumps({"body": "x"}))
        await asyncio.sleep(0.5)
        assert (await asyncio.to_thread(ping, worker_settings))["pid"] == worker.process.pid
        assert await worker.end() == 0
    app.close()


async def test_events_go_over_http_where_redis_is_out_of_reach(
    database: Database, worker_settings: Settings, folder: Path
) -> None:
    got: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except asyncio.IncompleteReadError:
                break
            length = int(head.partition("content-length: ")[2].split("\r\n")[0])
            got.append(json.loads(await reader.readexactly(length)) | {"authorised": "bearer " in head})
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = worker_settings.model_copy(update={"websocket_emit_url": f"http://127.0.0.1:{port}/internal/events"})
    await queue_training(database, settings)
    with WorkerProcess(settings, folder) as worker:
        await wait_status(database, "tr_1", "completed")
        await until(lambda: any(event["name"] == "training:completed" for event in got))
        await worker.end()
    server.close()
    await server.wait_closed()
    names = [event["name"] for event in got]
    assert names.count("training:progress") == 60
    assert names.count("checkpoint:created") == 4
    assert names[0] == "training:status"
    assert names[-1] == "training:completed"
    assert all(event["authorised"] for event in got)
    assert {event["payload"]["request_id"] for event in got} == {"req_tr_1"}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
