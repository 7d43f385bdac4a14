"""``backup schedule install|remove|show``: a timer where systemd runs, else a line of the crontab."""

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mistudio_ops.config.resolve import Resolved
from mistudio_ops.domain.schedule import (
    Installed,
    command_in_service,
    installed_block,
    scheduled_command,
    systemd_command,
    time_in_timer,
    unit_name,
    with_block,
    without_block,
)
from mistudio_ops.domain.scheduled_run import ScheduledRun
from mistudio_ops.drivers.crontab import Crontab
from mistudio_ops.drivers.environment_file import write_variables
from mistudio_ops.drivers.systemd import Systemd
from mistudio_ops.errors import NothingFoundError
from mistudio_ops.operations.backup.check import last_run
from mistudio_ops.operations.backup.notify import require_notify
from mistudio_ops.operations.backup.schedule_variables import schedule_variables
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.templates import render


@dataclass(frozen=True, slots=True)
class Scheduler:
    """What runs things here: systemd where it runs, else cron."""

    systemd: Systemd | None
    crontab: Crontab
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that is installed for an environment (more than one is one too many), and the last run."""

    environment: str
    installed: tuple[Installed, ...]
    next_run: datetime | None
    last_run: ScheduledRun | None
    configured_at: str


def scheduler_here(workplace: Workplace) -> Scheduler:
    """Return what this machine has."""
    return Scheduler(Systemd.here(workplace.environ), Crontab(workplace.environ))


def install(workplace: Workplace, resolved: Resolved, scheduler: Scheduler) -> Schedule:
    """Install the schedule, in place of one that is there. What would only fail at night is refused now.

    Raises:
        PreconditionError: there is neither systemd nor cron; apprise is missing; a file cannot be written.
        UsageError: the keys or the notification URLs cannot be used.
    """
    require_notify(workplace)
    workplace.directory.prepare()
    workplace.keys()
    file = environment_file(workplace)
    at = workplace.environment.backup.at
    command = scheduled_command(scheduler.python, workplace.environment.name, str(file))
    if scheduler.systemd is None:
        block = with_block(scheduler.crontab.read(), workplace.environment.name, at, command)
        write_variables(file, schedule_variables(resolved, workplace.environ))
        scheduler.crontab.write(block)
    else:
        write_variables(file, schedule_variables(resolved, workplace.environ))
        scheduler.systemd.install(unit_name(workplace.environment.name), _units(workplace, at, command))
        _take_out_of_crontab(workplace, scheduler)
    _advise(workplace, scheduler)
    return show(workplace, scheduler)


def remove(workplace: Workplace, scheduler: Scheduler) -> Schedule:
    """Take the schedule away, wherever it is; return what was there.

    Raises:
        NothingFoundError: there is none.
    """
    before = show(workplace, scheduler)
    name = unit_name(workplace.environment.name)
    if scheduler.systemd is not None:
        scheduler.systemd.remove(name, (f"{name}.timer", f"{name}.service"))
    _take_out_of_crontab(workplace, scheduler)
    environment_file(workplace).unlink(missing_ok=True)
    if not before.installed:
        raise NothingFoundError(
            f"no backup of {workplace.environment.name} is scheduled", hint="mistudio-ops backup schedule install"
        )
    return before


def show(workplace: Workplace, scheduler: Scheduler) -> Schedule:
    """Return where the schedule is, when it runs next, and how the last run ended."""
    installed = tuple(one for one in (_in_systemd(workplace, scheduler), _in_crontab(workplace, scheduler)) if one)
    now = workplace.now().astimezone()
    return Schedule(
        environment=workplace.environment.name,
        installed=installed,
        next_run=min((one.next_run(now) for one in installed), default=None),
        last_run=last_run(workplace),
        configured_at=workplace.environment.backup.at,
    )


def environment_file(workplace: Workplace) -> Path:
    """Return where the variables of the scheduled command are."""
    return workplace.directory.root.absolute() / f"{workplace.environment.name}.schedule.env"


def _units(workplace: Workplace, at: str, command: tuple[str, ...]) -> dict[str, str]:
    name, environment = unit_name(workplace.environment.name), workplace.environment.name
    return {
        f"{name}.service": render("backup.service.j2", environment=environment, command=systemd_command(command)),
        f"{name}.timer": render("backup.timer.j2", environment=environment, at=at),
    }


def _in_systemd(workplace: Workplace, scheduler: Scheduler) -> Installed | None:
    if scheduler.systemd is None:
        return None
    name = unit_name(workplace.environment.name)
    timer, service = (scheduler.systemd.read(f"{name}.{kind}") for kind in ("timer", "service"))
    at, command = time_in_timer(timer or ""), command_in_service(service or "")
    if at is None or command is None:
        return None
    place = scheduler.systemd.folder / f"{name}.timer"
    return Installed("systemd (user)" if scheduler.systemd.user else "systemd", str(place), at, command)


def _in_crontab(workplace: Workplace, scheduler: Scheduler) -> Installed | None:
    if not scheduler.crontab.available:
        return None
    found = installed_block(scheduler.crontab.read(), workplace.environment.name)
    return Installed("crontab", "crontab -l", *found) if found else None


def _take_out_of_crontab(workplace: Workplace, scheduler: Scheduler) -> None:
    if _in_crontab(workplace, scheduler) is None:
        return
    crontab = scheduler.crontab.read()
    scheduler.crontab.write(without_block(crontab, workplace.environment.name))


def _advise(workplace: Workplace, scheduler: Scheduler) -> None:
    if scheduler.systemd is not None and scheduler.systemd.user:
        workplace.reporter.warning(
            "a user's timers run only while that user is logged in", hint="loginctl enable-linger keeps them running"
        )
    if scheduler.systemd is None and not scheduler.crontab.daemon_runs():
        workplace.reporter.warning(
            "no cron daemon runs, so nothing will happen", hint="systemctl start cron, or service cron start"
        )
