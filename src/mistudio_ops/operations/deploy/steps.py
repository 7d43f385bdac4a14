"""The steps of a deploy: what each does, and how it is taken back when a later one fails."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import as_file, files

from mistudio_ops.domain.plan import PlannedStep
from mistudio_ops.domain.release import Release
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers import releases
from mistudio_ops.engines import nginx, postgres, store
from mistudio_ops.engines.layout import copy_web, prepare
from mistudio_ops.operations.deploy import gates
from mistudio_ops.operations.deploy.context import Context
from mistudio_ops.operations.deploy.facts import web_folder
from mistudio_ops.operations.deploy.migration import migrate

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What a step did, for the person who watches."""

    detail: str = ""


def apply(context: Context, step: PlannedStep) -> Done:
    """Carry out one step. Every step may be carried out again: it finds what is there already."""
    return _ACTIONS[step.action](context, step)


def _prepare(context: Context, _step: PlannedStep) -> Done:
    prepare(context.environment, context.host, context.secrets)
    if context.facts.is_new_release:
        with as_file(files("mistudio_server.web") / "static") as page:
            copy_web(page, web_folder(context.environment, context.facts.release_id))
    return Done(str(context.environment.state_dir))


def _boot(context: Context, _step: PlannedStep) -> Done:
    context.engine.boot(context.facts.wanted.units)
    return Done(f"process {context.engine.supervisor_pid()}")


def _initialise(context: Context, _step: PlannedStep) -> Done:
    program = context.host.programs.postgres
    postgres.create_cluster(context.environment, program, context.host.account, context.secrets)
    return Done(f"PostgreSQL {program.version}")


def _sync(context: Context, _step: PlannedStep) -> Done:
    postgres.sync_cluster(context.environment, context.host.programs.postgres, context.host.account)
    return Done()


def _start(context: Context, step: PlannedStep) -> Done:
    unit = context.unit(step.unit or step.name)
    if unit.kind == "proxy":
        nginx.install_config(
            context.environment, context.host.programs.nginx, context.host.account, context.proxy_config
        )
    before = context.engine.definition(unit.name)
    if step.action == "restart" and before is not None:
        context.can_undo(step.title, _back_to(context, before))
    context.engine.start(unit)
    return Done(_wait(context, unit))


def _reload(context: Context, step: PlannedStep) -> Done:
    environment, host = context.environment, context.host
    unit = context.unit(step.unit or step.name)
    path = nginx.config_file(environment)
    before = path.read_text() if path.is_file() else None

    def undo() -> None:
        if before is not None:
            nginx.install_config(environment, host.programs.nginx, host.account, before)
            context.engine.signal(unit.name, "HUP")

    nginx.install_config(environment, host.programs.nginx, host.account, context.proxy_config)
    context.can_undo(step.title, undo)
    context.engine.signal(unit.name, "HUP")
    gates.wait_for_proxy(context, unit, context.facts.proxy_generation)
    return Done(f"generation {context.facts.proxy_generation}")


def _migrate(context: Context, _step: PlannedStep) -> Done:
    migrated = migrate(context)
    context.schema = migrated.revision
    return Done(migrated.told)


def _stop(context: Context, step: PlannedStep) -> Done:
    context.engine.remove(step.unit or step.name)
    return Done()


def _activate(context: Context, _step: PlannedStep) -> Done:
    facts, paths = context.facts, context.environment.paths
    release = Release(
        id=facts.release_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=facts.source,
        config=facts.config,
        schema=context.schema,
        proxy_generation=facts.proxy_generation,
    )
    if release.id not in releases.release_ids(paths):
        releases.record(paths, release)
    releases.make_current(paths, release.id)
    return Done()


def _verify(context: Context, _step: PlannedStep) -> Done:
    return Done(gates.verify(context))


def _wait(context: Context, unit: Unit) -> str:
    """Wait until the unit is ready, in the way of its kind."""
    environment, secrets = context.environment, context.secrets
    if unit.kind == "postgres":
        postgres.wait_until_it_answers(environment, secrets, give_up=context.watch(unit.name))
        postgres.create_database(environment, secrets)
        return f"PostgreSQL {context.host.programs.postgres.version} on 127.0.0.1:{environment.postgres_port}"
    if unit.kind == "redis":
        store.wait_until_it_answers(environment, secrets, give_up=context.watch(unit.name))
        program = context.host.programs.store
        return f"{program.name} {program.version} on 127.0.0.1:{environment.redis_port}"
    if unit.kind == "backend":
        gates.wait_for_backend(context, unit)
        return f"ready on 127.0.0.1:{unit.ports[0]}"
    if unit.kind == "worker":
        gates.wait_for_worker(context, unit)
        return "answered a task"
    if unit.kind == "proxy":
        gates.wait_for_proxy(context, unit, context.facts.proxy_generation)
        return f"nginx {context.host.programs.nginx.version}, generation {context.facts.proxy_generation}"
    gates.wait_until_running(context, unit)
    return "running"


def _back_to(context: Context, before: Unit) -> Undo:
    def undo() -> None:
        context.engine.start(before)
        _wait(context, before)

    return undo


_ACTIONS: dict[str, Callable[[Context, PlannedStep], Done]] = {
    "prepare": _prepare,
    "boot": _boot,
    "initialise": _initialise,
    "sync": _sync,
    "start": _start,
    "restart": _start,
    "reload": _reload,
    "migrate": _migrate,
    "stop": _stop,
    "activate": _activate,
    "verify": _verify,
}
