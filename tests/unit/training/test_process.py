"""The process as its worker sees it: lines in, lines out, signals, and an exit code."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mistudio_server.errors import InvalidPathError
from mistudio_server.training.channel import PipeChannel
from mistudio_server.training.process import failure_of
from mistudio_server.training.protocol import REPORT, Failed, Finished, Metric, Report, Started, TrainingJob, Warned
from mistudio_server.training.run import run_training
from tests.unit.training.synthetic import MemoryChannel, noise, small_job, values_of, write_rows

pytestmark = pytest.mark.train


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    write_rows(tmp_path / "activations", noise())
    return small_job(tmp_path, total_steps=1_200, log_interval=50, checkpoint_interval=250)


class Process:
    """A training process and what it said."""

    def __init__(self, first_line: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "mistudio_server.training.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.reports: list[Report] = []
        self.say(first_line)

    def say(self, line: str) -> None:
        assert self.popen.stdin
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def until_metric(self, step: int) -> None:
        for report in self:
            if isinstance(report, Metric) and report.step >= step:
                return
        raise AssertionError(self.reports[-1:])

    def end(self) -> int:
        list(self)
        with self.popen:
            pass
        return self.popen.returncode

    def __iter__(self) -> Iterator[Report]:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.reports.append(REPORT.validate_json(line))
            yield self.reports[-1]


def recorded(*processes: Process) -> list[Metric]:
    """What a worker's database holds: past the checkpoint dropped, present rows kept."""
    rows: dict[int, Metric] = {}
    for report in (report for process in processes for report in process.reports):
        if isinstance(report, Started):
            rows = {step: row for step, row in rows.items() if step <= report.step}
        elif isinstance(report, Metric):
            rows.setdefault(report.step, report)
    return list(rows.values())


def test_signals_and_commands_in_turn_give_the_numbers_of_an_uninterrupted_run(
    job: TrainingJob, tmp_path: Path
) -> None:
    whole = MemoryChannel()
    run_training(job.model_copy(update={"checkpoints_dir": str(tmp_path / "elsewhere")}), whole, now=time.time)
    line = job.model_dump_json()

    terminated = Process(line)
    terminated.until_metric(300)
    terminated.say('{"command": "confirm", "step": 200}')
    terminated.popen.send_signal(signal.SIGTERM)
    assert terminated.end() == 0
    assert isinstance(terminated.reports[-1], Finished)
    assert terminated.reports[-1].reason == "interrupted"

    killed = Process(line)
    killed.until_metric(600)
    killed.popen.kill()
    assert killed.end() == -signal.SIGKILL

    paused = Process(line)
    paused.say("this is no command")
    paused.until_metric(850)
    paused.say('{"command": "finish", "reason": "paused"}')
    assert paused.end() == 0
    assert isinstance(paused.reports[-1], Finished)
    assert paused.reports[-1].reason == "paused"

    (warning,) = [report for report in paused.reports if isinstance(report, Warned)]
    assert (warning.code, "this is no command" in warning.message) == ("unknown_command", True)

    completed = Process(line)
    assert completed.end() == 0
    assert completed.reports[-1] == Finished(reason="completed", step=1_200)
    everything = recorded(terminated, killed, paused, completed)
    assert values_of(everything) == values_of(whole.of(Metric))


@pytest.mark.parametrize("line", ["", "garbage", "{}", '{"kind": "training"}', "\x00\xff"])
def test_first_line_that_is_no_job_fails(line: str) -> None:
    process = Process(line)
    assert process.popen.stdin
    process.popen.stdin.close()
    assert process.end() == 1
    (failed,) = process.reports
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_input"
    assert "not a job" in failed.message


def test_prints_of_libraries_do_not_garble_the_protocol(job: TrainingJob) -> None:
    """The process's standard output is its standard error; the protocol has a descriptor of its own."""
    program = (
        "import os, sys; from mistudio_server.training import process; "
        "output = process._take_standard_output(); print('noise'); sys.stdout.flush(); os.write(output, b'line')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"line", b"noise\n")


def test_dataset_that_cannot_be_used_fails_with_its_code(tmp_path: Path) -> None:
    process = Process(small_job(tmp_path).model_dump_json())
    assert process.end() == 1
    failed = process.reports[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.hint is not None) == ("invalid_dataset", True)
    assert str(tmp_path / "activations") in failed.message


def test_process_dies_with_its_parent(job: TrainingJob, tmp_path: Path) -> None:
    long = small_job(tmp_path, total_steps=10_000_000, log_interval=1000)
    program = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'mistudio_server.training.process'], stdin=subprocess.PIPE)\n"
        "p.stdin.write(sys.argv[1].encode() + b'\\n'); p.stdin.flush()\n"
        "print(p.pid, file=sys.stderr, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, long.model_dump_json()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        assert parent.stderr
        child = int(parent.stderr.readline())
        parent.stdout.readline()  # it started
        parent.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "insufficient_storage", "disk is full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "insufficient_storage", "disk is full"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
            "out_of_memory",
            "CUDA out of memory",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory", "memory"),
        (MemoryError(), "out_of_memory", "memory"),
        (InvalidPathError("no", hint="so"), "invalid_path", "no"),
        (ZeroDivisionError("division by zero"), "internal_error", "ZeroDivisionError: division by zero"),
    ],
)
def test_failures_have_stable_codes(error: Exception, code: str, says: str) -> None:
    failed = failure_of(error)
    assert failed.code == code
    assert says in failed.message
    assert failed.hint


def pipes() -> tuple[int, int, int, int]:
    return (*os.pipe(), *os.pipe())


def test_channel_takes_commands_that_come_in_pieces() -> None:
    commands, worker_out, worker_in, reports = pipes()
    channel = PipeChannel(commands, reports)
    channel.listen()
    line = b'{"command": "confirm", "step": 70}\n\n{"command": "confirm", "step": 60}\n'
    for byte in (line[:11], line[11:40], line[40:]):
        os.write(worker_out, byte)
        time.sleep(0.01)
    os.write(worker_out, b'{"command": "finish", "reason": "stopped"}\n')
    os.close(worker_out)
    deadline = time.monotonic() + 5
    while channel.finish_reason() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (channel.finish_reason(), channel.confirmed_step()) == ("stopped", 70)
    for descriptor in (worker_in, reports):
        os.close(descriptor)


def test_channel_whose_input_ends_asks_to_end() -> None:
    commands, worker_out, worker_in, reports = pipes()
    channel = PipeChannel(commands, reports)
    channel.listen()
    os.close(worker_out)
    deadline = time.monotonic() + 5
    while channel.finish_reason() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert channel.finish_reason() == "interrupted"
    for descriptor in (commands, worker_in, reports):
        os.close(descriptor)


def test_channel_whose_reader_went_asks_to_end_instead_of_failing() -> None:
    commands, worker_out, worker_in, reports = pipes()
    channel = PipeChannel(commands, reports)
    os.close(worker_in)
    channel.emit(Warned(code="x", message="y"))
    assert channel.finish_reason() == "interrupted"
    for descriptor in (commands, worker_out, reports):
        os.close(descriptor)


def test_a_report_is_one_line_of_json_even_with_values_that_are_not_finite() -> None:
    commands, worker_out, worker_in, reports = pipes()
    values: dict[str, Any] = dict.fromkeys(Metric.model_fields, None)
    metric = Metric.model_validate(values | {"type": "metric", "step": 3, "timestamp": 1.5})
    PipeChannel(commands, reports).emit(metric)
    line = os.read(worker_in, 65_536)
    assert json.loads(line)["loss"] is None
    assert line.count(b"\n") == 1
    assert REPORT.validate_json(line) == metric
    for descriptor in (commands, worker_out, worker_in, reports):
        os.close(descriptor)
