"""How a deploy, its plan and a stop look."""

from mistudio_ops.domain.plan import Plan
from mistudio_ops.operations.deploy.result import DeployResult
from mistudio_ops.operations.down import DownResult
from mistudio_ops.presentation.blocks import Block, Line, Table
from mistudio_ops.presentation.reporter import Result

DEPLOY_SCHEMA = "mistudio-ops/deploy/1"
DOWN_SCHEMA = "mistudio-ops/down/1"


def deploy_result(result: DeployResult) -> Result:
    """Return the plan of a dry run; else what was done and how long each step took."""
    blocks = _plan_blocks(result) if result.dry_run else _done_blocks(result)
    return Result(DEPLOY_SCHEMA, result, blocks)


def down_result(result: DownResult) -> Result:
    """Return what was stopped and removed."""
    what = f"stopped {len(result.stopped)} units" if result.was_running else "was not running"
    blocks: list[Block] = [Line(f"{result.environment}: {what}{', removed all its files' if result.purged else ''}")]
    if result.purged and result.kept_data:
        blocks.append(Line(f"kept: DATA_DIR {result.kept_data}, which lies outside the state directory", "warn"))
    if result.purged and result.kept_backups:
        blocks.append(
            Line(f"kept: the backups in {result.kept_backups}; remove the folder if nobody needs them", "warn")
        )
    return Result(DOWN_SCHEMA, result, blocks)


def _plan_blocks(result: DeployResult) -> list[Block]:
    if not result.plan.changes:
        return [_nothing(result)]
    what = "new release" if result.plan.new_release else "release"
    return [
        _steps(result.plan),
        Line(f"{what} {result.release} of {result.environment}; nothing was changed (--dry-run)", "dim"),
    ]


def _done_blocks(result: DeployResult) -> list[Block]:
    if not result.changed:
        return [_nothing(result)]
    order = sorted(result.timings, key=lambda timing: timing.begun)
    rows = [(timing.step, f"{timing.begun:.2f}", f"{timing.seconds:.2f}") for timing in order]
    return [
        Table(("step", "from s", "took s"), rows, right=frozenset({"from s", "took s"})),
        Line(
            f"{result.environment} serves release {result.release} at {result.url}, in {result.seconds:.1f} s", "good"
        ),
    ]


def _steps(plan: Plan) -> Table:
    rows = [
        (str(number), step.title, "all before" if len(step.after) == number - 1 > 1 else ", ".join(step.after))
        for number, step in enumerate(plan.steps, start=1)
    ]
    return Table(("", "step", "after"), rows)


def _nothing(result: DeployResult) -> Line:
    return Line(
        f"{result.environment} serves release {result.release} at {result.url} already; nothing to change", "good"
    )
