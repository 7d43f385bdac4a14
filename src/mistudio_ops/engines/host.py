"""This machine as an environment's units will find it: which programs, and who runs them."""

import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.account import Account, service_account
from mistudio_ops.drivers.embedded import Programs, find_programs, located
from mistudio_ops.drivers.embedded import reachable as make_reachable
from mistudio_ops.errors import PreconditionError

#: If an account reads these, it reads what the server imports.
_PROBED = ("mistudio_server", "fastapi", "celery", "psycopg", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Host:
    """``found`` are the programs where they lie, ``programs`` where the account will run them.

    ``python`` is who runs the server's own units: the account, or ourselves where it cannot read the interpreter.
    """

    account: Account
    found: Programs
    programs: Programs
    python: Account
    python_reason: str | None = None
    # -P: what lies in the working directory is never imported.
    server: tuple[str, ...] = (sys.executable, "-P", "-m", "mistudio_server")

    def stage(self, runtime: Path) -> None:
        """Copy the programs that the account cannot reach."""
        for program in (self.found.postgres, self.found.store, self.found.nginx):
            make_reachable(program, self.account, runtime)


def inspect_host(environment: Environment) -> Host:
    """Return what this machine offers for ``environment``. Nothing is written.

    Raises:
        PreconditionError: a program or the account is missing, or the account cannot enter the state directory.
    """
    account = service_account(environment.run_as)
    _check_reachable(environment.state_dir, account)
    found = find_programs(prefer=environment.prefer)
    runtime = environment.paths.runtime
    programs = Programs(*(located(program, account, runtime) for program in (found.postgres, found.store, found.nginx)))
    unreadable = _unreadable(account)
    if unreadable is None:
        return Host(account, found, programs, account)
    return Host(account, found, programs, Account("root", 0, 0, drop=False), unreadable)


def _check_reachable(state_dir: Path, account: Account) -> None:
    """The servers' account must enter every folder above the state directory."""
    existing = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    if existing == state_dir:
        existing = state_dir.parent
    if account.drop and not account.can_read(existing):
        raise PreconditionError(
            f"the account {account.name}, which runs the servers, cannot enter {existing}, where the state directory "
            f"{state_dir} is",
            hint="set MISTUDIO_STATE_DIR (or state_dir in mistudio.toml) to a folder such as /var/lib/mistudio",
        )


def _unreadable(account: Account) -> str | None:
    """Return the first path that the server's units need and the account cannot read; None when there is none."""
    if not account.drop:
        return None
    return next((str(path) for path in _needed() if not account.can_read(path)), None)


def _needed() -> Iterable[Path]:
    yield Path(sys.executable)
    yield Path(sysconfig.get_paths()["stdlib"]) / "os.py"
    for name in _PROBED:
        spec = find_spec(name)
        if spec is not None and spec.origin:
            yield Path(spec.origin)
