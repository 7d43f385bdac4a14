"""The story of a deploy."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.plan import Facts, Interrupted, Plan, plan_deploy
from mistudio_ops.drivers.http_probe import get
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.drivers.lock import command_line, exclusive
from mistudio_ops.engines.base import Engine
from mistudio_ops.engines.host import Host, inspect_host
from mistudio_ops.engines.layout import prepare_root
from mistudio_ops.engines.process import ProcessEngine
from mistudio_ops.engines.state_files import check_state_dir
from mistudio_ops.errors import LockedError, OpsError, PreviousServesError
from mistudio_ops.operations.deploy.context import Context, MigrationOptions
from mistudio_ops.operations.deploy.facts import Found, gather
from mistudio_ops.operations.deploy.gates import health_url
from mistudio_ops.operations.deploy.preflight import preflight
from mistudio_ops.operations.deploy.result import DeployResult
from mistudio_ops.operations.deploy.run import PlanRun
from mistudio_ops.operations.deploy.steps import apply
from mistudio_ops.operations.restore.interrupted import interrupted_restore
from mistudio_ops.presentation.reporter import Reporter


def deploy(
    environment: Environment,
    reporter: Reporter,
    *,
    dry_run: bool = False,
    engine: Engine | None = None,
    host: Host | None = None,
    migration: MigrationOptions | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> DeployResult:
    """Bring ``environment`` to the code and configuration that we are called with.

    Raises:
        PreconditionError, UsageError: nothing was changed.
        LockedError: another operation works on this environment; or on its database, and the release before serves.
        PreviousServesError: it failed, and the release before goes on serving.
        OpsError: it failed; on a first deploy what was started is stopped again, and the data is kept.
    """
    begun = clock()
    check_state_dir(environment.paths)
    host = host or inspect_host(environment)
    engine = engine or ProcessEngine(environment.paths)
    found = gather(environment, host, engine)
    reporter.hide(*found.secrets.all())
    preflight(environment, host, found.facts)
    if dry_run:
        return _result(environment, found.facts, plan_deploy(found.facts), dry_run=True)
    prepare_root(environment, host.account)
    with exclusive(environment.paths.lock, command_line()):
        # Between the look and the lock another deploy may have run: look again.
        found = gather(environment, host, engine)
        reporter.hide(*found.secrets.all())
        preflight(environment, host, found.facts)
        return _locked(environment, reporter, host, engine, found, migration or MigrationOptions(), begun, clock)


def _locked(
    environment: Environment,
    reporter: Reporter,
    host: Host,
    engine: Engine,
    found: Found,
    migration: MigrationOptions,
    begun: float,
    clock: Callable[[], float],
) -> DeployResult:
    plan = plan_deploy(found.facts)
    _tell_interrupted(reporter, found.facts.interrupted)
    _tell_restore(environment, reporter)
    if host.python_reason is not None:
        reporter.warning(
            f"backends, workers and beat run as root: {host.account.name} cannot read {host.python_reason}",
            hint="install mistudio where every account can read it, as in /opt/mistudio, to run them unprivileged",
        )
    journal = Journal(environment.paths.journal)
    try:
        run = _begin(environment, reporter, host, engine, found, migration, plan, journal)
        _supersede(journal, found.facts.interrupted)
        if plan.changes:
            _carry_out(run, environment, found.facts, engine, journal)
        journal.end(run.operation, "done")
    finally:
        journal.close()
    return _result(environment, found.facts, plan, seconds=clock() - begun, run=run)


def _begin(
    environment: Environment,
    reporter: Reporter,
    host: Host,
    engine: Engine,
    found: Found,
    migration: MigrationOptions,
    plan: Plan,
    journal: Journal,
) -> PlanRun:
    context = Context(
        environment, host, found.secrets, found.facts, found.proxy_config, engine, reporter, migration=migration
    )
    operation = journal.begin("deploy", asdict(plan))
    return PlanRun(plan, operation, journal, reporter, partial(apply, context), context.cancelled, context.undos)


def _carry_out(run: PlanRun, environment: Environment, facts: Facts, engine: Engine, journal: Journal) -> None:
    try:
        run.run()
    except Exception as error:
        journal.end(run.operation, "failed", str(error)[:2000])
        _after_failure(run, environment, facts, engine, error)
        raise
    except BaseException:
        journal.end(run.operation, "interrupted")
        _after_failure(run, environment, facts, engine, None)
        raise


def _after_failure(
    run: PlanRun, environment: Environment, facts: Facts, engine: Engine, error: Exception | None
) -> None:
    """First deploy: stop what was started. Later ones: let what serves serve on."""
    if facts.current is None:
        with run.reporter.step("stop what was started (data is kept)"):
            engine.shutdown()
        return
    problems: list[str] = []
    if facts.current.source.code == facts.source.code:
        # Only the configuration differs, so the units can go back to theirs. Older code is not there any more: units
        # that have not been restarted still run it.
        problems = run.undo()
    answer = get(health_url(environment), timeout=5.0)
    if error is None or answer is None or answer.status >= 500:  # noqa: PLR2004 - server errors
        return
    causes = "".join(f"\ncould not be taken back: {problem}" for problem in problems)
    hint = error.hint if isinstance(error, OpsError) else None
    # Whom it waited for is worth an exit code of its own: trying again later is all that is needed.
    kind = LockedError if isinstance(error, LockedError) else PreviousServesError
    raise kind(
        f"release {facts.release_id} was not deployed, and {facts.current.id} goes on serving: {error}{causes}",
        hint=hint,
    ) from error


def _tell_interrupted(reporter: Reporter, interrupted: Interrupted | None) -> None:
    if interrupted is not None:
        at = ", ".join(interrupted.at) or "no step"
        reporter.note(
            f"the deploy begun at {interrupted.begun} was cut off during {at}, "
            f"after {len(interrupted.done)} finished steps: going on from what is there"
        )


def _tell_restore(environment: Environment, reporter: Reporter) -> None:
    """A restore that was cut off left one whole database live at every moment: a deploy only starts what is there."""
    cut = interrupted_restore(environment)
    if cut is not None:
        reporter.warning(
            f"the {cut.plan.kind} of {cut.plan.backup}, begun at {cut.begun}, was cut off; this deploy does not end it",
            hint="mistudio-ops restore --resume goes on with it; mistudio-ops restore --abort goes back",
        )


def _supersede(journal: Journal, interrupted: Interrupted | None) -> None:
    if interrupted is not None:
        journal.end(interrupted.operation, "superseded")


def _result(
    environment: Environment,
    facts: Facts,
    plan: Plan,
    *,
    dry_run: bool = False,
    seconds: float = 0.0,
    run: PlanRun | None = None,
) -> DeployResult:
    return DeployResult(
        environment=environment.name,
        url=environment.url,
        release=plan.release,
        changed=plan.changes,
        dry_run=dry_run,
        plan=plan,
        interrupted=facts.interrupted,
        seconds=round(seconds, 3),
        timings=tuple(run.timings) if run is not None else (),
    )
