"""``mistudio-ops health``."""

from typing import TYPE_CHECKING, Annotated

import typer

from mistudio_ops.cli.context import Invocation
from mistudio_ops.cli.verb import verb, verb_app
from mistudio_ops.errors import ExitCode, OpsError, UsageError

if TYPE_CHECKING:
    from mistudio_ops.operations.health.facts import Facts

app = verb_app()
#: What monitoring systems take for "the plugin could not look".
_NAGIOS_UNKNOWN = 3
_CODES = {
    ExitCode.OK: "healthy (with --nagios: OK)",
    ExitCode.FAILED: "a check fails, or the environment is not deployed (with --nagios: WARNING, nothing fails)",
    ExitCode.USAGE: "wrong usage or configuration (with --nagios: CRITICAL, a check fails)",
    ExitCode.PARTIAL: "only with --nagios: UNKNOWN, the checks could not be run",
}

WaitOption = Annotated[float | None, typer.Option("--wait", metavar="S", min=0, help="Try until healthy, S seconds.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Go on checking; a line whenever something changes.")]
EveryOption = Annotated[float, typer.Option("--every", metavar="S", min=1, help="Seconds between looks of --watch.")]
NagiosOption = Annotated[bool, typer.Option("--nagios", help="One line and performance data; exit 0, 1, 2 or 3.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", metavar="CHECK", help="Run only this; repeatable.")]


@verb(app, schema="mistudio-ops/health/1", codes=_CODES)
def health(
    invocation: Invocation,
    *,
    wait: WaitOption = None,
    watch: WatchOption = False,
    every: EveryOption = 10.0,
    nagios: NagiosOption = False,
    only: OnlyOption = None,
) -> ExitCode | None:
    """Check that everything works, side by side, in at most ten seconds.

    The checks: api, frontend, postgres, redis, worker (a real task through a real worker), migrations, partitions,
    pool, disk, units.
    """
    if watch and (wait is not None or nagios or invocation.options.json):
        raise UsageError(
            "--watch goes on for ever and fits neither --wait nor --nagios nor --json", hint="leave it out"
        )
    if nagios:
        return _nagios(invocation, only)
    facts = _facts(invocation)
    if watch:
        _watch(invocation, facts, every, only)
    return _once(invocation, facts, wait, only)


def _facts(invocation: Invocation) -> "Facts":
    from mistudio_ops.operations.health.gather import gather_facts

    facts = gather_facts(invocation.environment())
    invocation.reporter.hide(*facts.secrets)
    return facts


def _once(invocation: Invocation, facts: "Facts", wait: float | None, only: list[str] | None) -> ExitCode:
    from mistudio_ops.operations.health.run import check_health
    from mistudio_ops.operations.health.wait import wait_until_healthy
    from mistudio_ops.presentation.health import health_result

    if wait is None:
        report = check_health(facts, only=only)
    else:
        report = wait_until_healthy(facts, invocation.reporter, seconds=wait, only=only)
    invocation.reporter.result(health_result(report))
    return ExitCode.OK if report.healthy else ExitCode.FAILED


def _watch(invocation: Invocation, facts: "Facts", every: float, only: list[str] | None) -> None:
    from mistudio_ops.operations.health.watch import watch_health
    from mistudio_ops.presentation.health import summary_line

    for report, when in watch_health(facts, every=every, only=only):
        invocation.reporter.output(summary_line(report, when.strftime("%H:%M:%S")))


def _nagios(invocation: Invocation, only: list[str] | None) -> ExitCode:
    from mistudio_ops.domain.check import nagios_line, nagios_state
    from mistudio_ops.operations.health.run import check_health
    from mistudio_ops.presentation.blocks import Raw
    from mistudio_ops.presentation.reporter import Result

    try:
        report = check_health(_facts(invocation), only=only)
    except OpsError as error:
        line = Raw(f"MISTUDIO UNKNOWN - {' '.join(error.message.split())}")
        invocation.reporter.result(Result("mistudio-ops/health/1", None, (line,), ok=False))
        return ExitCode(_NAGIOS_UNKNOWN)
    invocation.reporter.result(Result("mistudio-ops/health/1", report, (Raw(nagios_line(report)),), ok=report.healthy))
    return ExitCode(nagios_state(report)[0])
