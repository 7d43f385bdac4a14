"""Timers of systemd: the machine's own as root, the user's otherwise."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.errors import OpsError, PreconditionError

RUNNING = Path("/run/systemd/system")
SYSTEM_UNITS = Path("/etc/systemd/system")
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class SystemdError(OpsError):
    """systemctl refuses."""

    code = "systemd"


def run_program(argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run ``systemctl`` and return what it said."""
    return subprocess.run(argv, capture_output=True, text=True, check=False)


class Systemd:
    """Units below ``folder``. ``user`` says whose they are."""

    def __init__(self, folder: Path, *, user: bool, run: Run = run_program) -> None:
        self.folder, self.user, self._run = folder, user, run

    @classmethod
    def here(cls, environ: Mapping[str, str], *, running: Path = RUNNING, euid: int | None = None) -> "Systemd | None":
        """Return the one that fits our account, None where systemd does not run."""
        if not running.is_dir():
            return None
        if (os.geteuid() if euid is None else euid) == 0:
            return cls(SYSTEM_UNITS, user=False)
        config = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
        return cls(Path(config) / "systemd" / "user", user=True)

    def read(self, unit: str) -> str | None:
        """Return a unit file, None where there is none."""
        try:
            return (self.folder / unit).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def install(self, name: str, units: Mapping[str, str]) -> None:
        """Write the unit files, and start the timer ``name``.

        Raises:
            PreconditionError: they cannot be written.
            SystemdError: systemctl refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unit, text in units.items():
                write_atomically(self.folder / unit, text, mode=0o644)
        except OSError as error:
            raise PreconditionError(f"units cannot be written to {self.folder}: {error.strerror}") from error
        self._systemctl("daemon-reload")
        self._systemctl("enable", f"{name}.timer")
        self._systemctl("restart", f"{name}.timer")

    def remove(self, name: str, units: Sequence[str]) -> None:
        """Stop the timer and remove the unit files.

        Raises:
            SystemdError: systemctl refuses.
        """
        if self.read(f"{name}.timer") is not None:
            self._systemctl("disable", "--now", f"{name}.timer")
        for unit in units:
            (self.folder / unit).unlink(missing_ok=True)
        self._systemctl("daemon-reload")

    def _systemctl(self, *arguments: str) -> None:
        argv = ["systemctl", *(["--user"] if self.user else []), *arguments]
        try:
            done = self._run(argv)
        except OSError as error:
            raise SystemdError(f"{' '.join(argv)} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise SystemdError(
                f"{' '.join(argv)} failed: {done.stderr.strip()}", hint=f"{' '.join(argv)}, and systemctl status"
            )
