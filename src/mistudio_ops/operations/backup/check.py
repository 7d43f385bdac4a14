"""``backup check``: look at the backups, and tell whoever watches."""

import shutil
from datetime import timedelta
from pathlib import Path

from mistudio_ops.domain.backup_check import BackupFacts, BackupReport, check_backups
from mistudio_ops.domain.scheduled_run import ScheduledRun
from mistudio_ops.drivers.heartbeat import HEARTBEAT_VARIABLE, beat
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.backup.notify import require_notify
from mistudio_ops.operations.backup.workplace import Workplace


def check(workplace: Workplace) -> BackupReport:
    """Return what is right and wrong with the backups. Takes no lock, reads manifests only, and changes nothing."""
    last = last_run(workplace)
    facts = BackupFacts(
        environment=workplace.environment.name,
        directory=str(workplace.directory.root),
        backups=tuple(workplace.directory.all()),
        now=workplace.now(),
        max_age=timedelta(hours=workplace.environment.backup.max_age_hours),
        free_bytes=_free_bytes(workplace.directory.root),
        last_run_failed=last.problem if last else None,
        notify_problem=_notify_problem(workplace),
    )
    return check_backups(facts)


def check_and_tell(workplace: Workplace) -> BackupReport:
    """Check, write the textfile and call the heartbeat, where these are configured. Their failure only warns."""
    report = check(workplace)
    write_textfile(workplace, report)
    send_heartbeat(workplace, ok=report.ok)
    return report


def write_textfile(workplace: Workplace, report: BackupReport) -> None:
    """Write the Prometheus textfile, where one is configured."""
    from mistudio_ops.drivers.metrics_textfile import write_metrics

    path = workplace.environment.backup.textfile
    if path is None:
        return
    try:
        write_metrics(path, report, last_run(workplace))
    except OSError as error:
        workplace.reporter.warning(
            f"the Prometheus textfile {path} cannot be written: {error.strerror}",
            hint="set backup.textfile to a file in a folder that exists and can be written",
        )


def send_heartbeat(workplace: Workplace, *, ok: bool) -> None:
    """Call the heartbeat's URL, where one is configured."""
    url = workplace.environ.get(HEARTBEAT_VARIABLE)
    if not url:
        return
    workplace.reporter.hide(url)
    problem = beat(url, ok=ok)
    if problem:
        workplace.reporter.warning(
            f"the heartbeat could not be sent: {problem}", hint=f"is {HEARTBEAT_VARIABLE} right, and the network there?"
        )


def run_file(workplace: Workplace) -> Path:
    """Return where the outcome of the last scheduled run is."""
    return workplace.directory.root / f"{workplace.environment.name}.schedule.json"


def last_run(workplace: Workplace) -> ScheduledRun | None:
    """Return the last scheduled run, None where there was none or its record cannot be read."""
    try:
        return ScheduledRun.parse(run_file(workplace).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _notify_problem(workplace: Workplace) -> str | None:
    try:
        require_notify(workplace)
    except OpsError as error:
        return f"{error.message} ({error.hint})"
    return None


def _free_bytes(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
