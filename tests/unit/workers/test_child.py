"""A child's output, errors and end, with small programs in its place."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mistudio_server.training.protocol import Confirm, Metric, Started, TrainingJob
from mistudio_server.workers.child import Child

JOB = TrainingJob.model_validate(
    {"training_id": "t", "activations_dir": "/a", "checkpoints_dir": "/c", "hyperparameters": {}}
)
METRIC = (
    '{"type":"metric","step":%d,"timestamp":1,"loss":1,"loss_reconstructed":1,"l0_sparsity":1,"l1_sparsity":1,'
    '"fvu":1,"dead_neurons":1,"learning_rate":1,"grad_norm":1,"gpu_memory_used_mb":1,"samples_per_second":1}'
)


async def start(code: str, **environment: str) -> Child:
    return await Child.start([sys.executable, "-c", code], JOB, {**os.environ, **environment})


async def test_gathers_metrics_and_ends_a_batch_at_any_other_report() -> None:
    started = '{"type":"started","step":0,"device":"cpu","d_model":1,"dictionary_size":2}'
    lines = [METRIC % 1, METRIC % 2, started, METRIC % 3]
    child = await start(f"print({chr(10).join(lines)!r})")
    first = await child.batch(linger=2, limit=100)
    assert [type(report) for report in first] == [Metric, Metric, Started]
    assert [getattr(report, "step", None) for report in await child.batch(linger=1, limit=100)] == [3]
    assert await child.batch(linger=1, limit=100) == []
    assert await child.batch(linger=1, limit=100) == [], "the end is the end"
    assert await child.close() is None


async def test_a_batch_has_a_limit() -> None:
    child = await start(f"print({chr(10).join(METRIC % n for n in range(7))!r})")
    assert [len(await child.batch(linger=1, limit=3)) for _ in range(3)] == [3, 3, 1]
    await child.close()


async def test_gets_its_job_and_commands_and_no_secret() -> None:
    code = (
        "import sys, os; job = sys.stdin.readline(); command = sys.stdin.readline();"
        "sys.stderr.write(job + command + str(sorted(set(os.environ) & {'DATABASE_URL', 'INTERNAL_TOKEN'})));"
        "raise SystemExit(3)"
    )
    child = await start(code, DATABASE_URL="postgresql+psycopg://u:planted@h/d", INTERNAL_TOKEN="planted")
    await child.send(Confirm(step=7))
    said = await child.close()
    assert said is not None
    assert "exit code 3" in said
    assert '"training_id":"t"' in said
    assert '"step":7' in said
    assert said.endswith("[]")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL (out of memory?)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise SystemExit(7)", "exit code 7"),
        ("raise ValueError('the reason')", "ValueError: the reason"),
    ],
)
async def test_says_how_it_ended(code: str, says: str) -> None:
    child = await start(code)
    assert await child.batch(linger=1, limit=1) == []
    said = await child.close()
    assert said is not None
    assert says in said


async def test_one_that_does_not_end_is_killed() -> None:
    child = await start("import time; time.sleep(60)")
    said = await child.close(patience=0.1)
    assert said is not None
    assert "was killed" in said
    assert not Path(f"/proc/{child.pid}/exe").exists()


async def test_commands_to_one_that_has_gone_are_dropped() -> None:
    child = await start("pass")
    await child.batch(linger=1, limit=1)
    for _ in range(3):
        await child.send(Confirm(step=1))
    await child.finish("paused")
    assert await child.close() is None


async def test_waits_when_nobody_takes_its_reports() -> None:
    code = (
        "import sys\nfor n in range(200000):\n"
        f"    sys.stdout.write({METRIC!r} % n + chr(10)); sys.stdout.flush()\n    sys.stderr.write(f'{{n}}\\n')\n"
    )
    child = await start(code)
    await asyncio.sleep(0.7)
    before = child._last_lines[-1]
    await asyncio.sleep(0.3)
    assert child._last_lines[-1] == before, "it stands still"
    assert int(before) < 20_000
    child.kill()
    await child.close()


async def test_a_program_that_is_not_there_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        await Child.start(["/nowhere/python"], JOB)
