"""A run from job to last report: the same numbers however often it is interrupted, and clear ends when it cannot."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from mistudio_server.errors import InsufficientStorageError, InvalidDatasetError, InvalidInputError
from mistudio_server.training.checkpoints import WEIGHTS_FILE, load_snapshot
from mistudio_server.training.failures import TrainingDivergedError
from mistudio_server.training.hyperparameters import Hyperparameters
from mistudio_server.training.protocol import (
    CheckpointSaved,
    Finished,
    Metric,
    Report,
    Started,
    TrainingJob,
    Warned,
)
from mistudio_server.training.run import run_training
from tests.unit.training.synthetic import MemoryChannel, noise, small_job, values_of, write_rows

pytestmark = pytest.mark.train

OnReport = Callable[[MemoryChannel, Report], None]


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    write_rows(tmp_path / "activations", noise())
    return small_job(tmp_path)


def changed(job: TrainingJob, **changes: object) -> TrainingJob:
    hyperparameters = Hyperparameters.model_validate(job.hyperparameters.model_dump() | changes)
    return job.model_copy(update={"hyperparameters": hyperparameters})


def run(job: TrainingJob, on_report: OnReport | None = None) -> MemoryChannel:
    channel = MemoryChannel(on_report)
    run_training(job, channel, now=itertools.count(1.7e9).__next__)
    return channel


def elsewhere(job: TrainingJob, tmp_path: Path) -> TrainingJob:
    return job.model_copy(update={"checkpoints_dir": str(tmp_path / "elsewhere")})


def finish_at(step: int, reason: str = "paused") -> OnReport:
    def on_report(channel: MemoryChannel, report: Report) -> None:
        if isinstance(report, Metric) and report.step >= step:
            channel.reason = reason  # type: ignore[assignment]

    return on_report


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours runs afterwards."""


def kill_at(step: int, *, confirm: bool = False) -> OnReport:
    def on_report(channel: MemoryChannel, report: Report) -> None:
        if isinstance(report, Metric):
            if confirm:
                channel.confirmed = report.step
            if report.step >= step:
                raise KilledError

    return on_report


def run_killed(job: TrainingJob, on_report: OnReport) -> MemoryChannel:
    channel = MemoryChannel(on_report)
    with pytest.raises(KilledError):
        run_training(job, channel, now=itertools.count(1.7e9).__next__)
    return channel


def as_recorded(*channels: MemoryChannel) -> list[Metric]:
    """What the database holds after these runs: rows past the checkpoint are dropped, rows that it has stay."""
    rows: dict[int, Metric] = {}
    for channel in channels:
        for report in channel.reports:
            if isinstance(report, Started):
                rows = {step: row for step, row in rows.items() if step <= report.step}
            elif isinstance(report, Metric):
                rows.setdefault(report.step, report)
    return list(rows.values())


def test_uninterrupted_run_reports_in_order(job: TrainingJob) -> None:
    reports = run(job).reports
    assert reports[0] == Started(step=0, device="cpu", d_model=16, dictionary_size=64)
    steps = [report.step for report in reports if isinstance(report, Metric)]
    assert steps == [*range(3, 40, 3), 40]
    saved = [report for report in reports if isinstance(report, CheckpointSaved)]
    assert [(report.step, report.removed_steps) for report in saved] == [(10, []), (20, []), (30, []), (40, [10])]
    assert reports[-1] == Finished(reason="completed", step=40)
    assert sorted(path.name for path in Path(job.checkpoints_dir).iterdir()) == [
        f"step-{step:010d}" for step in (20, 30, 40)
    ]


def test_metrics_are_of_a_plausible_run(job: TrainingJob) -> None:
    first, *_, last = run(job).of(Metric)
    assert last.loss is not None
    assert last.loss < first.loss
    assert (last.l0_sparsity, last.learning_rate, last.gpu_memory_used_mb) == (4.0, 1e-3, None)
    assert last.samples_per_second is not None
    assert last.samples_per_second > 0
    assert last.fvu == pytest.approx(last.loss_reconstructed / 1.0, rel=0.2)  # scaled noise has a variance near 1


def test_same_seed_same_numbers_another_seed_others(job: TrainingJob, tmp_path: Path) -> None:
    first = values_of(run(job).of(Metric))
    assert values_of(run(elsewhere(job, tmp_path)).of(Metric)) == first
    other = changed(job.model_copy(update={"checkpoints_dir": str(tmp_path / "third")}), seed=6)
    assert values_of(run(other).of(Metric)) != first


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
@pytest.mark.parametrize("step", [3, 9, 12, 30, 39])
def test_finished_early_and_resumed_gives_the_same_numbers(
    job: TrainingJob, tmp_path: Path, architecture: str, step: int
) -> None:
    job = changed(job, architecture=architecture, resample_dead_every=8, lr_warmup_steps=15, lr_decay_steps=15)
    whole = values_of(run(elsewhere(job, tmp_path)).of(Metric))
    before = run(job, finish_at(step))
    assert before.reports[-1] == Finished(reason="paused", step=step)
    after = run(job)
    assert after.of(Started)[0].step == step
    assert values_of(as_recorded(before, after)) == whole


@pytest.mark.parametrize("step", [3, 12, 21, 39])
@pytest.mark.parametrize("confirm", [True, False])
def test_killed_and_resumed_gives_the_same_numbers(job: TrainingJob, tmp_path: Path, step: int, confirm: bool) -> None:
    whole = values_of(run(elsewhere(job, tmp_path)).of(Metric))
    before = run_killed(job, kill_at(step, confirm=confirm))
    after = run(job)
    assert after.of(Started)[0].step == step // 10 * 10
    assert values_of(as_recorded(before, after)) == whole


def test_metrics_lost_with_the_worker_are_sent_again_and_confirmed_ones_not(job: TrainingJob, tmp_path: Path) -> None:
    whole = run(elsewhere(job, tmp_path)).of(Metric)
    before = run_killed(job, kill_at(21, confirm=False))
    after = run(job)
    assert values_of(after.of(Metric)) == values_of(whole)  # the worker's database lost everything: all comes again
    assert after.of(Metric)[0] == before.of(Metric)[0]  # with its first timestamp

    confirmed = job.model_copy(update={"checkpoints_dir": str(tmp_path / "confirmed")})
    run_killed(confirmed, kill_at(21, confirm=True))
    assert [metric.step for metric in run(confirmed).of(Metric)][:2] == [21, 24]


def test_interrupted_at_every_metric_still_ends_with_the_same_weights(job: TrainingJob, tmp_path: Path) -> None:
    other = elsewhere(job, tmp_path)
    run(other)
    for step in range(3, 40, 3):
        run(job, finish_at(step, "interrupted"))
    assert run(job).reports[-1] == Finished(reason="completed", step=40)
    hashes = {(Path(j.checkpoints_dir) / "step-0000000040" / WEIGHTS_FILE).read_bytes() for j in (job, other)}
    assert len(hashes) == 1


@pytest.mark.parametrize("reason", ["paused", "stopped", "interrupted"])
def test_asked_to_end_before_the_first_step_it_checkpoints_step_zero(job: TrainingJob, reason: str) -> None:
    channel = MemoryChannel()
    channel.reason = reason  # type: ignore[assignment]
    run_training(job, channel, now=lambda: 0.0)
    assert [report.step for report in channel.of(CheckpointSaved)] == [0]
    assert channel.reports[-1] == Finished(reason=reason, step=0)  # type: ignore[arg-type]
    assert run(job).reports[-1] == Finished(reason="completed", step=40)


def test_completed_run_started_again_repeats_its_last_reports(job: TrainingJob) -> None:
    """The worker may die between the last line and its commit."""
    first = run(job)
    again = run(job)
    assert again.reports[0] == Started(step=40, device="cpu", d_model=16, dictionary_size=64)
    (saved,) = again.of(CheckpointSaved)
    assert saved.sha256 == first.of(CheckpointSaved)[-1].sha256
    assert again.reports[-1] == Finished(reason="completed", step=40)


def test_more_steps_can_be_added_to_a_completed_run(job: TrainingJob, tmp_path: Path) -> None:
    longer = changed(job, total_steps=60)
    whole = values_of(run(elsewhere(longer, tmp_path)).of(Metric))
    run(changed(job, total_steps=40))
    after = run(longer)
    assert after.of(Started)[0].step == 40
    assert values_of(after.of(Metric))[-1] == whole[-1]


def test_corrupt_checkpoint_falls_back_with_a_warning_and_the_same_numbers(job: TrainingJob, tmp_path: Path) -> None:
    whole = values_of(run(elsewhere(job, tmp_path)).of(Metric))
    before = run_killed(job, kill_at(33))
    newest = Path(job.checkpoints_dir) / "step-0000000030" / WEIGHTS_FILE
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x00")
    after = run(job)
    (warning,) = after.of(Warned)
    assert warning.code == "corrupt_checkpoint"
    assert "step-0000000030" in warning.message
    assert after.of(Started)[0].step == 20
    assert values_of(as_recorded(before, after)) == whole


def test_all_checkpoints_corrupt_starts_over_with_a_warning_each(job: TrainingJob) -> None:
    run_killed(job, kill_at(33))
    for path in Path(job.checkpoints_dir).glob("step-*/state.json"):
        path.write_text("{")
    after = run(job)
    assert len(after.of(Warned)) == 3
    assert after.of(Started)[0].step == 0
    assert after.reports[-1] == Finished(reason="completed", step=40)


def test_full_disk_fails_the_run_and_leaves_what_was(job: TrainingJob) -> None:
    free = iter([10**12, 10**12, 1_000])
    channel = MemoryChannel()
    with pytest.raises(InsufficientStorageError, match="step 30"):
        run_training(job, channel, now=lambda: 0.0, free_bytes=lambda _: next(free))
    assert [report.step for report in channel.of(CheckpointSaved)] == [10, 20]
    assert load_snapshot(Path(job.checkpoints_dir) / "step-0000000020")[0].step == 20
    assert run(job).of(Started)[0].step == 20


def test_nan_in_the_data_fails_the_run_naming_the_row(job: TrainingJob) -> None:
    rows = noise()
    rows[1234, 5] = float("nan")
    write_rows(Path(job.activations_dir), rows)
    with pytest.raises(InvalidDatasetError, match="row 534 holds the value nan"):
        run(job)


def test_divergence_fails_the_run_and_saves_no_poisoned_checkpoint(job: TrainingJob) -> None:
    job = changed(job, architecture="standard", l1_coefficient=1e3, learning_rate=1.0, gradient_clip_norm=1e6)
    write_rows(Path(job.activations_dir), noise() * 1e30)
    channel = MemoryChannel()
    with pytest.raises(TrainingDivergedError) as caught:
        run_training(changed(job, normalize_activations=False), channel, now=lambda: 0.0)
    assert "learning_rate" in (caught.value.hint or "")
    assert channel.of(Metric)[-1].loss is None
    assert not channel.of(CheckpointSaved)


@pytest.mark.parametrize(
    ("changes", "word"), [({"dictionary_size": 32}, "dictionary_size"), ({"architecture": "standard"}, "architecture")]
)
def test_checkpoint_of_another_autoencoder_is_refused(job: TrainingJob, changes: dict[str, object], word: str) -> None:
    run(job)
    with pytest.raises(InvalidInputError, match=word):
        run(changed(job, **changes))


def test_dataset_that_grew_is_warned_about(job: TrainingJob) -> None:
    run(job, finish_at(12))
    write_rows(Path(job.activations_dir), noise(2_100))
    (warning,) = run(job).of(Warned)
    assert (warning.code, "2100 rows and had 2000" in warning.message) == ("dataset_changed", True)


def of_steps(metrics: list[Metric]) -> list[int]:
    return [metric.step for metric in metrics]


def confirm_all(channel: MemoryChannel, report: Report) -> None:
    if isinstance(report, Metric):
        channel.confirmed = report.step


def restored_to(job: TrainingJob, step: int) -> TrainingJob:
    """The job as a worker gives it whose database has metrics through ``step``."""
    return job.model_copy(update={"recorded_step": step})


@pytest.mark.parametrize(
    ("recorded", "resumed", "aside"),
    [
        (39, 30, ["ahead-step-0000000040"]),  # the last metric, of step 40, was confirmed and is gone
        (36, 30, ["ahead-step-0000000040"]),
        (30, 30, ["ahead-step-0000000040"]),
        (27, 20, ["ahead-step-0000000030", "ahead-step-0000000040"]),
        (18, 20, ["ahead-step-0000000030", "ahead-step-0000000040"]),
        (15, 0, ["ahead-step-0000000020", "ahead-step-0000000030", "ahead-step-0000000040"]),
        (0, 0, ["ahead-step-0000000020", "ahead-step-0000000030", "ahead-step-0000000040"]),
        (40, 40, []),
        (99, 40, []),
    ],
)
def test_checkpoints_ahead_of_a_restored_database_are_set_aside(
    job: TrainingJob, tmp_path: Path, recorded: int, resumed: int, aside: list[str]
) -> None:
    whole = run(elsewhere(job, tmp_path)).of(Metric)
    before = run(job, confirm_all)
    after = run(restored_to(job, recorded))
    assert after.of(Started)[0].step == resumed
    assert [warning.code for warning in after.of(Warned)] == ["checkpoint_ahead"] * len(aside)
    assert sorted(path.name for path in Path(job.checkpoints_dir).glob("ahead-*")) == aside
    kept = [metric for metric in before.of(Metric) if metric.step <= min(recorded, resumed)]
    assert values_of([*kept, *after.of(Metric)]) == values_of(whole)


@pytest.mark.parametrize("recorded", [0, 3, 18])
def test_a_checkpoint_that_carries_what_the_database_lacks_is_used(job: TrainingJob, recorded: int) -> None:
    def confirm_some(channel: MemoryChannel, report: Report) -> None:
        if isinstance(report, Metric) and report.step <= recorded:
            channel.confirmed = report.step

    run(job, confirm_some)
    after = run(restored_to(job, recorded))
    assert after.of(Warned) == []
    assert after.of(Started)[0].step == 40
    assert of_steps(after.of(Metric)) == [step for step in (*range(3, 40, 3), 40) if step > recorded]


def test_without_a_word_about_the_database_no_checkpoint_is_judged(job: TrainingJob) -> None:
    run(job, confirm_all)
    after = run(job)
    assert (after.of(Started)[0].step, after.of(Warned)) == (40, [])
