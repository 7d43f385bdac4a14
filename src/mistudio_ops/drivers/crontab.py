"""Our account's crontab, as bytes: what others wrote in it is passed through untouched."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from mistudio_ops.errors import OpsError, PreconditionError

_NONE = b"no crontab for"
_DAEMONS = frozenset({"cron", "crond", "fcron", "cronie", "busybox", "anacron"})


class CrontabError(OpsError):
    """The crontab cannot be read or written."""

    code = "crontab"


class Crontab:
    """Reads and writes through the ``crontab`` program, found on the PATH of ``environ``."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    @property
    def available(self) -> bool:
        """True where the program is installed."""
        return self._program() is not None

    def read(self) -> bytes:
        """Return the crontab; empty where there is none.

        Raises:
            PreconditionError: there is no ``crontab`` program.
            CrontabError: it refuses.
        """
        done = self._run("-l")
        if done.returncode == 0:
            return done.stdout
        if _NONE in done.stderr:
            return b""
        raise _refused("read", done.stderr)

    def write(self, content: bytes) -> None:
        """Replace the crontab; an empty one is removed.

        Raises:
            PreconditionError: there is no ``crontab`` program.
            CrontabError: it refuses. The old one stays.
        """
        done = self._run("-", content) if content else self._run("-r")
        if done.returncode != 0:
            raise _refused("written", done.stderr)

    def daemon_runs(self) -> bool:
        """True when a process looks like a cron daemon."""
        import psutil

        return any(process.info["name"] in _DAEMONS for process in psutil.process_iter(["name"]))

    def _program(self) -> str | None:
        return shutil.which("crontab", path=self._environ.get("PATH"))

    def _run(self, argument: str, content: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        program = self._program()
        if program is None:
            raise PreconditionError(
                "neither systemd nor cron is here: there is no crontab program",
                hint="install cron (apt install cron), or run `mistudio-ops backup --scheduled` from what you have",
            )
        environment = {**self._environ, "LC_ALL": "C"}
        return subprocess.run([program, argument], input=content, env=environment, capture_output=True, check=False)


def _refused(what: str, stderr: bytes) -> CrontabError:
    said = stderr.decode(errors="replace").strip()
    return CrontabError(f"the crontab cannot be {what}: {said}", hint="crontab -l; is the account in /etc/cron.allow?")
