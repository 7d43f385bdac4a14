"""The unprivileged account that servers run under when we are root (PostgreSQL refuses root)."""

import os
import pwd
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mistudio_ops.errors import PreconditionError

#: Tried in this order when none is configured. No account is ever created.
CANDIDATES = ("mistudio", "nobody")


class PopenIdentity(TypedDict, total=False):
    """The arguments of ``subprocess`` that change who a child is."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who servers run as. ``drop`` is False when that is who we are already."""

    name: str
    uid: int
    gid: int
    drop: bool

    def popen(self) -> PopenIdentity:
        """Return the ``subprocess`` arguments that start a child as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.drop else {}

    def own(self, path: Path) -> None:
        """Give one file or folder (not what is in it) to this account."""
        if self.drop:
            os.chown(path, self.uid, self.gid)

    def can_read(self, path: Path) -> bool:
        """Return True when this account reaches ``path``: every folder above it can be entered, itself read."""
        if not self.drop:
            return os.access(path, os.R_OK)
        resolved = path.resolve()
        return all(self._allowed(folder, 0o1) for folder in resolved.parents) and self._allowed(resolved, 0o4)

    def _allowed(self, path: Path, bit: int) -> bool:
        try:
            status = path.stat()
        except OSError:
            return False
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return bool(status.st_mode & (bit << shift))


def service_account(name: str | None = None, *, euid: Callable[[], int] = os.geteuid) -> Account:
    """Return the account for servers: ourselves, or as root the named one, else the first of ``CANDIDATES``.

    Raises:
        PreconditionError: we are root and no such account exists.
    """
    if euid() != 0:
        us = pwd.getpwuid(euid())
        return Account(us.pw_name, us.pw_uid, us.pw_gid, drop=False)
    for candidate in (name,) if name else CANDIDATES:
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, drop=True)
    raise PreconditionError(
        f"running as root, and there is no account {name or ' or '.join(CANDIDATES)} to run the servers under",
        hint="useradd --system mistudio, or set process.run_as in mistudio.toml to an existing account",
    )


def stage(sources: Mapping[str, Path], target: Path) -> None:
    """Copy trees to ``target``, each under its name there, so that an account without access to them can run them.

    Atomic: the copy gets its name when it is complete.
    """
    if target.exists():
        return
    partial = target.with_name(f"{target.name}.partial.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for name, source in sources.items():
        shutil.copytree(
            source, partial / name, symlinks=True, ignore=shutil.ignore_patterns("*.a", "__pycache__", "*.py")
        )
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.exists():
            raise
