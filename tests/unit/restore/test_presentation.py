"""What a person sees of a restore before it is confirmed, and after."""

import io
import json

import pytest

from mistudio_ops.domain.restore_plan import Loss, RestoreFacts, RunningTraining, TableLoss, plan_restore
from mistudio_ops.operations.restore.result import (
    AbortResult,
    FinalizeResult,
    KeptDatabase,
    RestoreResult,
    RestoreStatus,
    Timing,
)
from mistudio_ops.presentation.json_document import json_value
from mistudio_ops.presentation.plain import PlainReporter
from mistudio_ops.presentation.reporter import Result
from mistudio_ops.presentation.restore import abort_result, finalize_result, loss_text, restore_result, status_result

LOSS = Loss(
    "20260101T030000Z-0123abcd", "mistudio", 95.0,
    (TableLoss("trainings", 12, 10), TableLoss("training_metrics", 1_500_000, 1_400_000), TableLoss("models", 3, 3),
     TableLoss("features", None, 7), TableLoss("scratch", 5, None), TableLoss("datasets", 1, 4)),
    (RunningTraining("trn_1", "night run", "running", 4200),),
)  # fmt: skip
PLAN = plan_restore(
    RestoreFacts(LOSS.backup_id, "mistudio", "0123abcd", "mistudio_restore_0123abcd", "mistudio_before_0123abcd", True)
)
KEPT = KeptDatabase("mistudio_before_0123abcd", "before", 300 << 20)


def printed(result: Result) -> str:
    out = io.StringIO()
    reporter = PlainReporter(out, io.StringIO())
    reporter.result(result)
    reporter.close()
    return out.getvalue()


def test_the_loss_names_minutes_tables_and_trainings() -> None:
    text = printed(restore_result(RestoreResult("local", "mistudio", PLAN, LOSS, dry_run=True)))
    assert "the backup is 1.6 hours old; what came after it is lost" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert rows["trainings"].split()[1:] == ["12", "10", "2", "lost"]
    assert rows["training_metrics"].split()[1:] == ["1,500,000", "1,400,000", "100000", "lost"]
    assert rows["features"].split()[1:] == ["-", "7", "is", "gone,", "comes", "back"]
    assert rows["scratch"].split()[1:] == ["5", "-", "is", "not", "in", "the", "backup"]
    assert rows["datasets"].split()[1:] == ["1", "4", "3", "come", "back"]
    assert "models" not in rows
    assert "training night run (trn_1) is running at step 4200" in text
    assert "nothing was changed" in text


def test_the_question_is_asked_over_the_same_text() -> None:
    text = loss_text(LOSS)
    assert "trainings  12  10  2 lost" in text
    assert "night run" in text


@pytest.mark.parametrize(("minutes", "said"), [(3.0, "3 minutes"), (120.0, "2.0 hours"), (4320.0, "3.0 days")])
def test_age_in_fitting_units(minutes: float, said: str) -> None:
    assert f"is {said} old" in loss_text(Loss("B", "db", minutes))


def test_what_cannot_be_counted_is_said() -> None:
    text = loss_text(Loss("B", "db", 1.0, problem="its rows cannot be counted: damaged page"))
    assert "damaged page" in text
    assert "as many rows" not in text


def test_what_was_done_says_how_to_take_it_back() -> None:
    done = RestoreResult(
        "local", "mistudio", PLAN, LOSS, kept=KEPT, safety="20260102T000000Z-1", seconds=42.0, downtime=3.2,
        timings=(Timing("load", 30.5),), warnings=("api fails, as it did before: redis",),
    )  # fmt: skip
    text = printed(restore_result(done))
    assert "42.0 s, 3.2 s of them without backends and workers" in text
    assert "mistudio_before_0123abcd (315 MB)" in text
    assert "mistudio-ops restore --undo" in text
    assert "api fails, as it did before" in text


def test_not_confirmed_is_not_ok_and_carries_the_loss() -> None:
    result = restore_result(RestoreResult("local", "mistudio", PLAN, LOSS), ok=False)
    assert not result.ok
    document = json.loads(json.dumps(json_value(result.data)))
    assert document["loss"]["tables"][0] == {"table": "trainings", "now": 12, "backup": 10}


def test_abort_finalize_and_status() -> None:
    aborted = AbortResult(
        "local", "mistudio", "B", ("mistudio_restore_1",), swapped_back=True, kept="mistudio_before_2"
    )
    assert "kept as mistudio_before_2" in printed(abort_result(aborted))
    finalized = finalize_result(FinalizeResult("local", (KEPT,)))
    assert "315 MB" in printed(finalized)
    assert json_value(finalized.data)["bytes"] == 300 << 20
    cut = RestoreStatus("local", "mistudio", True, PLAN, "2026-01-01T00:00:00", ("copy",), True, (KEPT,))
    text = printed(status_result(cut))
    assert "the restored database is live" in text
    assert "--resume" in text
    assert "from before a restore" in text
    assert "no restore is under way" in printed(status_result(RestoreStatus("local", "mistudio", True)))
    assert "there is no database mistudio" in printed(status_result(RestoreStatus("local", "mistudio", False)))
