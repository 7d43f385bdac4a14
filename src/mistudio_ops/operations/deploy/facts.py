"""Gathering what a deploy finds. Nothing is written."""

from dataclasses import dataclass
from pathlib import Path

from mistudio_ops.domain.environment import Environment, EnvironmentPaths
from mistudio_ops.domain.plan import Facts, Interrupted
from mistudio_ops.domain.release import Release, Source, next_id
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.drivers.code import installed_source
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.drivers.releases import current_release, read_release, release_ids
from mistudio_ops.drivers.secret_file import generate, read_secrets
from mistudio_ops.engines import nginx, postgres
from mistudio_ops.engines.base import Engine
from mistudio_ops.engines.host import Host
from mistudio_ops.engines.layout import build_layout, config_hash
from mistudio_ops.engines.state_files import marker
from mistudio_ops.errors import PreconditionError


@dataclass(frozen=True, slots=True)
class Found:
    """The facts, and what was rendered on the way to them."""

    facts: Facts
    secrets: SecretValues
    proxy_config: str


def gather(environment: Environment, host: Host, engine: Engine, *, source: Source | None = None) -> Found:
    """Return what there is and what is wanted."""
    paths = environment.paths
    secrets = _secrets(environment)
    source = source or installed_source()
    config = config_hash(environment, host, secrets)
    current = current_release(paths)
    release = _release_id(paths, current, source, config)
    text, generation = nginx.render_config(environment, host.programs.nginx.version, web_folder(environment, release))
    pid = engine.supervisor_pid()
    present = engine.states() if pid is not None else {}
    proxy = present.get("proxy")
    facts = Facts(
        wanted=build_layout(environment, host, secrets, release=release, code=source.code),
        source=source,
        config=config,
        proxy_generation=generation,
        release_id=release,
        current=current,
        prepared=marker(paths).is_file() and paths.secrets.is_file(),
        supervisor_pid=pid,
        postgres_initialised=postgres.initialised(paths.postgres),
        present=present,
        serving_generation=nginx.served_generation(environment) if proxy is not None and proxy.running else None,
        interrupted=_interrupted(paths.journal),
    )
    return Found(facts, secrets, text)


def _release_id(paths: EnvironmentPaths, current: Release | None, source: Source, config: str) -> str:
    """Return the current release's id if nothing differs; else that of a record cut off before it became current."""
    ids = release_ids(paths)
    newest = read_release(paths, ids[-1]) if ids else None
    for candidate in (current, newest):
        if candidate is not None and candidate.same_as(source, config):
            return candidate.id
    return next_id(ids)


def web_folder(environment: Environment, release: str) -> Path:
    """Return the folder of a release's static page."""
    return environment.paths.releases / release / "web"


def _secrets(environment: Environment) -> SecretValues:
    paths = environment.paths
    known = read_secrets(paths.secrets)
    if known is None and postgres.initialised(paths.postgres):
        raise PreconditionError(
            f"{paths.postgres} holds a database, and {paths.secrets} with its passwords is gone",
            hint=f"put back the secrets.json that belongs to it, or remove everything with "
            f"mistudio-ops down {environment.name} --purge --confirm {environment.name}",
        )
    return known or SecretValues.completed({}, generate)


def _interrupted(path: Path) -> Interrupted | None:
    if not path.is_file():
        return None
    journal = Journal(path)
    try:
        return journal.interrupted("deploy")
    finally:
        journal.close()
