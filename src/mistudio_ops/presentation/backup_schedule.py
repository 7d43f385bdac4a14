"""How a scheduled run, and the schedule itself, look."""

from dataclasses import asdict

from mistudio_ops.domain.schedule import Installed
from mistudio_ops.domain.scheduled_run import ScheduledRun, Stage
from mistudio_ops.operations.backup.schedule import Schedule
from mistudio_ops.presentation.blocks import Block, Cell, Line, Table, Tone
from mistudio_ops.presentation.reporter import Result

RUN_SCHEMA = "mistudio-ops/backup-scheduled/1"
SCHEDULE_SCHEMA = "mistudio-ops/backup-schedule/1"
_TONES: dict[str, Tone] = {"ok": "good", "skipped": "dim", "failed": "bad"}


def run_result(run: ScheduledRun) -> Result:
    """Return the stages as a table, the hints of those that failed, and a verdict."""
    data = asdict(run) | {"exit_code": int(run.exit_code)}
    return Result(RUN_SCHEMA, data, run_blocks(run), ok=not run.failures)


def run_blocks(run: ScheduledRun) -> tuple[Block, ...]:
    """Return what a person sees of a run."""
    hints = [Line(f"{one.name}: {one.hint}", "dim") for one in run.failures if one.hint]
    word = "FAILED" if run.failures else "done"
    took = (run.ended - run.begun).total_seconds()
    verdict = f"scheduled backup of {run.environment} {word}, {run.begun:%Y-%m-%d %H:%M} UTC, {took:.0f} s"
    table = Table(("", "stage", "s", "what"), [_row(one) for one in run.stages], right=frozenset({"s"}))
    return (table, *hints, Line(verdict, "bad" if run.failures else "good"))


def schedule_result(schedule: Schedule) -> Result:
    """Return where it is installed, when it runs next, and how the last run ended."""
    blocks: list[Block] = [_where(schedule, one) for one in schedule.installed]
    if len(blocks) > 1:
        blocks.append(
            Line("it is installed more than once; mistudio-ops backup schedule install sets that right", "warn")
        )
    if schedule.next_run is not None:
        blocks.append(Line(f"next run: {schedule.next_run:%Y-%m-%d %H:%M %Z}"))
    else:
        blocks.append(Line(f"no backup of {schedule.environment} is scheduled", "warn"))
        blocks.append(Line("mistudio-ops backup schedule install", "dim"))
    blocks += run_blocks(schedule.last_run) if schedule.last_run else [Line("it never ran yet", "dim")]
    return Result(SCHEDULE_SCHEMA, asdict(schedule), blocks)


def removed_result(schedule: Schedule) -> Result:
    """Return what is gone."""
    gone = Line(f"backups of {schedule.environment} are no longer scheduled; those that were made stay", "good")
    return Result(SCHEDULE_SCHEMA, asdict(schedule), (gone,))


def _where(schedule: Schedule, one: Installed) -> Line:
    text = f"daily at {one.at} by {one.place}: {one.where}"
    if one.at != schedule.configured_at:
        return Line(f"{text}; configured is {schedule.configured_at}: install it again", "warn")
    return Line(text, "good")


def _row(stage: Stage) -> list[Cell | str]:
    return [Cell(stage.outcome, _TONES[stage.outcome]), stage.name, f"{stage.seconds:.1f}", stage.detail]
