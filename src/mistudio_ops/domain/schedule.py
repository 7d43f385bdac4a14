"""The lines that make cron or systemd run a backup. Pure: text in, text out."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Place = Literal["systemd", "systemd (user)", "crontab"]
_CRON_LINE = re.compile(rb"^(\d{1,2}) (\d{1,2}) \* \* \* (.+)$", re.MULTILINE)
_OURS = re.compile(rb" -m mistudio_ops backup create --scheduled ")
_SYSTEMD_LITERAL = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"})


@dataclass(frozen=True, slots=True)
class Installed:
    """A schedule as it is installed: where, the file that holds it, when it runs (local time), and what."""

    place: Place
    where: str
    at: str
    command: str

    def next_run(self, now: datetime) -> datetime:
        """Return the next time of day ``at``, in the time zone of ``now``."""
        hour, minute = (int(part) for part in self.at.split(":"))
        today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)


def scheduled_command(python: str, environment: str, file: str) -> tuple[str, ...]:
    """Return the command line: absolute paths only, and (-P) nothing imported from the folder that it starts in."""
    program = (python, "-P", "-m", "mistudio_ops", "backup", "create")
    return (*program, "--scheduled", "--environment-file", file, "--env", environment)


def cron_command(command: Sequence[str]) -> str:
    """Return the command as a crontab holds it: quoted for the shell, and ``%``, cron's newline, escaped."""
    return shlex.join(command).replace("%", "\\%")


def with_block(crontab: bytes, environment: str, at: str, command: Sequence[str]) -> bytes:
    """Return the crontab with our block for the environment at its end; every other byte stays what it is."""
    rest = without_block(crontab, environment)
    hour, minute = at.split(":")
    begin, end = _markers(environment)
    line = f"{int(minute)} {int(hour)} * * * {cron_command(command)}\n".encode()
    newline = b"" if not rest or rest.endswith(b"\n") else b"\n"
    return rest + newline + begin + line + end


def without_block(crontab: bytes, environment: str) -> bytes:
    """Return the crontab without our block; of one that somebody cut, what is left of it."""
    begin, end = _markers(environment)
    rest: list[bytes] = []
    after_begin = False
    for line in crontab.splitlines(keepends=True):
        if line.rstrip(b"\n") == end.rstrip(b"\n"):
            if rest and not after_begin and _OURS.search(rest[-1]):
                rest.pop()
        elif line != begin and not (after_begin and _OURS.search(line)):
            rest.append(line)
        after_begin = line == begin or (after_begin and bool(_OURS.search(line)))
    return b"".join(rest)


def installed_block(crontab: bytes, environment: str) -> tuple[str, str] | None:
    """Return time of day and command of our block, None where there is none."""
    begin, end = _markers(environment)
    start = crontab.find(begin)
    stop = crontab.find(end, start)
    found = _CRON_LINE.search(crontab[start:stop]) if start >= 0 and stop >= 0 else None
    if found is None:
        return None
    minute, hour, command = found.groups()
    return f"{int(hour):02d}:{int(minute):02d}", command.decode(errors="replace")


def systemd_command(command: Sequence[str]) -> str:
    """Return the command as ExecStart= holds it."""
    return " ".join(f'"{part.translate(_SYSTEMD_LITERAL)}"' for part in command)


def unit_name(environment: str) -> str:
    """Return the name of the service and the timer, without suffix."""
    return f"mistudio-backup-{environment}"


def time_in_timer(text: str) -> str | None:
    """Return the time of day of a timer that we wrote."""
    found = re.search(r"^OnCalendar=\*-\*-\* (\d\d:\d\d):00$", text, re.MULTILINE)
    return found.group(1) if found else None


def command_in_service(text: str) -> str | None:
    """Return the command line of a service that we wrote, as it stands there."""
    found = re.search(r"^ExecStart=(.+)$", text, re.MULTILINE)
    return found.group(1) if found else None


def _markers(environment: str) -> tuple[bytes, bytes]:
    name = f"mistudio-ops backup schedule: {environment}"
    return f"# >>> {name} (do not edit; `backup schedule remove` takes it away)\n".encode(), f"# <<< {name}\n".encode()
