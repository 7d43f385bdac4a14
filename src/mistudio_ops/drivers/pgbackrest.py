"""The program pgBackRest, where an operator installed and configured it."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mistudio_ops.drivers.account import Account
from mistudio_ops.errors import NothingFoundError, OpsError, PreconditionError

_HINT = "mistudio-ops config render pgbackrest prints its configuration, and the steps that lead to it"
_INFO_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class PgBackRest:
    """One stanza. It is run as ``account``, whose files the cluster's are."""

    program: str
    config: Path
    stanza: str
    account: Account

    def earliest(self) -> datetime:
        """Return the second after the end of the oldest backup: the first moment that can be gone back to.

        Raises:
            PreconditionError: the stanza does not exist or holds no backup.
        """
        output = self._run("--output=json", "info", seconds=_INFO_SECONDS)
        found = next((one for one in json.loads(output) if one["name"] == self.stanza), None)
        backups = found["backup"] if found else []
        if not backups:
            said = found["status"]["message"] if found else "missing stanza path"
            raise PreconditionError(f"pgBackRest has no backup of {self.stanza}: {said}", hint=_HINT)
        # It counts in whole seconds, and wants a backup that ended before the moment.
        return datetime.fromtimestamp(min(one["timestamp"]["stop"] for one in backups) + 1, UTC)

    def restore(self, folder: Path, when: datetime, timeline: int | None = None) -> None:
        """Restore the cluster's files into ``folder``, so that a server which starts there recovers to ``when``.

        ``timeline`` is the live server's; None: the newest that the archive knows, which may be one given up.

        Raises:
            OpsError: it failed; the message has its last words.
        """
        target = when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        on = () if timeline is None else (f"--target-timeline={timeline}",)
        self._run(
            f"--pg1-path={folder}", "--type=time", f"--target={target}", *on, "--target-action=promote", "restore",
            seconds=None,
        )  # fmt: skip

    def _run(self, *arguments: str, seconds: float | None) -> str:
        done = subprocess.run(
            [self.program, f"--config={self.config}", f"--stanza={self.stanza}", *arguments], capture_output=True,
            text=True, errors="replace", check=False, timeout=seconds, stdin=subprocess.DEVNULL, cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}, **self.account.popen(),
        )  # fmt: skip
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()[-6:]
            raise OpsError(f"pgBackRest {arguments[-1]} failed: {' / '.join(lines)}", hint=_HINT)
        return done.stdout


def find_pgbackrest(config: Path, stanza: str, account: Account) -> PgBackRest:
    """Return the program with its configuration.

    Raises:
        PreconditionError: it is not installed, or not configured for this environment.
    """
    program = shutil.which("pgbackrest")
    if program is None:
        raise PreconditionError(
            "going back to a moment needs pgBackRest, which is not installed; backups go back to when they were made",
            hint="apt-get install pgbackrest; then " + _HINT,
        )
    if not config.is_file():
        raise PreconditionError(f"pgBackRest is not configured for this environment: there is no {config}", hint=_HINT)
    return PgBackRest(program, config, stanza, account)


def check_moment(earliest: datetime, when: datetime, now: datetime) -> None:
    """Refuse a moment that the archive does not hold.

    Raises:
        NothingFoundError: it is before the oldest backup, or in the future.
    """
    if not earliest <= when <= now:
        raise NothingFoundError(
            f"the archive reaches from {earliest:%Y-%m-%d %H:%M:%S%z} to now; {when:%Y-%m-%d %H:%M:%S%z} is outside",
            hint="name a moment within, with its time zone",
        )
