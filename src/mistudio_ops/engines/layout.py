"""From an environment to its units, and to the folders and files that they need."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.units import Layout, Unit, UnitKind
from mistudio_ops.domain.variables import environment_file as render_environment_file
from mistudio_ops.domain.variables import server_variables
from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.drivers.secret_file import write_secrets
from mistudio_ops.engines import nginx, postgres, store
from mistudio_ops.engines.host import Host
from mistudio_ops.engines.state_files import (
    environment_file,
    launcher,
    marker,
    nginx_run,
    postgres_run,
    python_home,
)

_PATH = "/usr/local/bin:/usr/bin:/bin"
#: What the machine's driver set-up may need, and what nobody sets for one shell only.
_INHERITED = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


def build_layout(environment: Environment, host: Host, secrets: SecretValues, *, release: str, code: str) -> Layout:
    """Return the units of ``environment`` as ``release`` runs them."""
    units: list[Unit] = []
    if environment.redis_url is None:
        units.append(store.unit(environment, host.programs.store, host.account, secrets))
    if environment.database_url is None:
        units.append(postgres.unit(environment, host.programs.postgres, host.account))
    shared = _python_environment(environment, secrets, release, code)
    units += [_backend(environment, host, shared, n) for n in range(1, environment.backends + 1)]
    units += [_worker(environment, host, shared, n) for n in range(1, environment.workers + 1)]
    units.append(_python_unit("beat", environment, host, shared, "beat"))
    units.append(nginx.unit(environment, host.programs.nginx, host.account))
    return Layout(tuple(units))


def config_hash(environment: Environment, host: Host, secrets: SecretValues) -> str:
    """Return the identity of an environment's configuration, whichever release runs it."""
    layout = build_layout(environment, host, secrets, release="", code="")
    text, _ = nginx.render_config(environment, host.programs.nginx.version, Path("web"))
    whole = json.dumps([*(unit.digest for unit in layout.units), text])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def prepare(environment: Environment, host: Host, secrets: SecretValues) -> None:
    """Make the folders and files that the units need. Idempotent; no owner is changed below an existing folder."""
    _make_folders(environment, host)
    paths = environment.paths
    write_secrets(paths.secrets, secrets)
    write_atomically(
        environment_file(paths, environment.name), render_environment_file(environment, secrets), mode=0o600
    )
    if environment.redis_url is None:
        store.write_config(environment, secrets, host.account)
    host.stage(paths.runtime)
    _copy_launcher(launcher(paths))


def prepare_root(environment: Environment, account: Account) -> None:
    """Make the state directory and mark it as ours."""
    root = environment.paths.root
    root.mkdir(mode=0o755 if account.drop else 0o700, parents=True, exist_ok=True)
    root.chmod(0o755 if account.drop else 0o700)
    if not marker(environment.paths).exists():
        write_atomically(
            marker(environment.paths), json.dumps({"environment": environment.name, "layout": 1}) + "\n", mode=0o644
        )


def copy_web(source: Path, target: Path) -> None:
    """Copy the static page to where the proxy's account reads it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for path in (target.parent, target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _make_folders(environment: Environment, host: Host) -> None:
    paths = environment.paths
    shared = 0o755 if host.account.drop else 0o700
    for folder in (paths.config, paths.run, paths.runtime, paths.releases):
        _folder(folder, shared, None)
    for folder in (paths.logs, paths.config / "units", paths.config / "programs", paths.run / "units"):
        _folder(folder, 0o700, None)
    for folder in (postgres_run(paths), nginx_run(paths), paths.redis):
        _folder(folder, 0o700, host.account)
    _folder(python_home(paths), 0o700, host.python)
    _folder(environment.data, 0o700, host.python, adjust=environment.data == paths.data)


def _folder(path: Path, mode: int, owner: Account | None, *, adjust: bool = True) -> None:
    """Make one folder. One that an operator configured (``adjust`` False) keeps its mode and owner if it exists."""
    if path.is_dir() and not adjust:
        return
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)
    if owner is not None:
        if owner.drop:
            owner.own(path)
        elif os.geteuid() == 0 and path.stat().st_uid != owner.uid:
            os.chown(path, owner.uid, owner.gid)


def _copy_launcher(target: Path) -> None:
    with as_file(files("mistudio_ops.engines") / "launch.py") as source:
        text = source.read_text(encoding="utf-8")
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_atomically(target, text, mode=0o644)


def _python_environment(environment: Environment, secrets: SecretValues, release: str, code: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": str(python_home(environment.paths)),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",  # glibc's arenas per thread cost a threaded process tens of MB
        "MISTUDIO_UNIT_DIR": str(environment.paths.root),
        "MISTUDIO_RELEASE": release,
        "MISTUDIO_CODE": code,
        "HOST": "127.0.0.1",
        **server_variables(environment, secrets),
    }


def _backend(environment: Environment, host: Host, shared: dict[str, str], number: int) -> Unit:
    ports = (environment.backend_port(number), environment.internal_port(number))
    variables = shared | {"PORT": str(ports[0]), "INTERNAL_PORT": str(ports[1]), "INTERNAL_HOST": "127.0.0.1"}
    made = _python_unit(f"backend-{number}", environment, host, variables, "run")
    return replace(made, stop_seconds=12, ports=ports)


def _worker(environment: Environment, host: Host, shared: dict[str, str], number: int) -> Unit:
    # On SIGTERM it lets its trainings write a checkpoint, and requeues them.
    return replace(_python_unit(f"worker-{number}", environment, host, shared, "worker"), stop_seconds=40)


def _python_unit(name: str, environment: Environment, host: Host, variables: dict[str, str], verb: str) -> Unit:
    kind: UnitKind = "backend" if verb == "run" else "worker" if verb == "worker" else "beat"
    return Unit(
        name=name,
        kind=kind,
        argv=(*host.server, verb),
        environment=variables | {"MISTUDIO_INSTANCE": name},
        directory=str(python_home(environment.paths)),
        stop_seconds=10,
        uid=host.python.uid if host.python.drop else None,
        gid=host.python.gid if host.python.drop else None,
    )
