"""The lab around the database: what writes is stopped and started again, and asked whether it is well."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit, urlunsplit

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.units import kind_of
from mistudio_ops.engines.base import Engine
from mistudio_ops.errors import OpsError, PreconditionError
from mistudio_ops.presentation.reporter import Reporter

#: What connects to the database. The proxy stays: it answers 502 meanwhile.
WRITERS = ("beat", "worker", "backend")
#: Checks that a restored database must pass. The others have nothing to do with it.
CHECKS = ("api", "postgres", "migrations", "worker")
HEALTH_SECONDS = 60.0

Migrate = Callable[[str], str]
Failures = Callable[[float], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Lab:
    """``migrate`` brings a database to this release's schema and says where it is; ``failures`` waits up to some
    seconds for health and returns what each failed check says.
    """

    engine: Engine
    migrate: Migrate
    failures: Failures

    def writers(self) -> tuple[str, ...]:
        """Return the units that run and write, in the order in which they start."""
        running = [name for name, state in self.engine.states().items() if state.running]
        return tuple(name for kind in reversed(WRITERS) for name in sorted(running) if kind_of(name) == kind)

    def stop(self, units: Sequence[str]) -> None:
        """Stop them together; workers let their trainings write a checkpoint and put them back into the queue."""
        known = self.engine.states()
        running = [name for name in units if name in known and known[name].running]
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(self.engine.stop, running))

    def start(self, units: Sequence[str]) -> None:
        """Start them as they were; those that run are left alone.

        Raises:
            PreconditionError: the supervisor is gone, or a unit's definition is.
        """
        if not units:
            return
        if self.engine.supervisor_pid() is None:
            raise PreconditionError("nothing runs that could start the units", hint="mistudio-ops deploy starts all")
        for name in units:
            unit = self.engine.definition(name)
            if unit is None:
                raise PreconditionError(f"nobody knows how {name} is started", hint="mistudio-ops deploy starts all")
            self.engine.start(unit)


def deployed_lab(environment: Environment, engine: Engine, reporter: Reporter) -> Lab:
    """Return the lab that was deployed here."""
    return Lab(
        engine,
        migrate=lambda dbname: _migrate(environment, engine, dbname),
        failures=lambda seconds: _failures(environment, reporter, seconds),
    )


def _migrate(environment: Environment, engine: Engine, dbname: str) -> str:
    """Run ``mistudio-server migrate`` of the deployed release on the database ``dbname``."""
    from mistudio_ops.engines.host import inspect_host
    from mistudio_ops.operations.deploy.server_process import run_server

    unit = engine.definition("backend-1")
    if unit is None:
        raise PreconditionError(
            f"environment {environment.name} has no backend whose code could migrate {dbname}",
            hint=f"mistudio-ops deploy {environment.name}",
        )
    variables = {**unit.environment, "DATABASE_URL": _other_database(unit.environment["DATABASE_URL"], dbname)}
    arguments = ("migrate", "--partitions", "--json")
    with run_server(inspect_host(environment), replace(unit, environment=variables), arguments) as process:
        output, errors = process.communicate()  # never cut off: it commits or rolls back by itself
    if process.returncode != 0:
        lines = (errors + output).strip().splitlines()[-25:]
        raise OpsError(
            f"migrating {dbname} failed with exit status {process.returncode}:\n"
            + "\n".join(f"    {line}" for line in lines),
            hint="the live database was not touched; a backup of the release that runs needs no migration",
        )
    return str(json.loads(output)["current"])


def _other_database(url: str, dbname: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(dbname, safe="")))


def _failures(environment: Environment, reporter: Reporter, seconds: float) -> dict[str, str]:
    from mistudio_ops.operations.health.gather import gather_facts
    from mistudio_ops.operations.health.run import check_health
    from mistudio_ops.operations.health.wait import wait_until_healthy

    facts = gather_facts(environment)
    reporter.hide(*facts.secrets)
    if seconds > 0:
        report = wait_until_healthy(facts, reporter, seconds=seconds, only=CHECKS)
    else:
        report = check_health(facts, only=CHECKS)
    return {check.name: check.evidence for check in report.failed}
