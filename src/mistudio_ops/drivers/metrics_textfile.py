"""Figures of the backups for Prometheus, as a textfile that node_exporter's collector reads."""

from datetime import datetime
from pathlib import Path

from mistudio_ops.domain.backup_check import BackupReport
from mistudio_ops.domain.scheduled_run import ScheduledRun

_PREFIX = "mistudio_backup"


def write_metrics(path: Path, report: BackupReport, last_run: ScheduledRun | None) -> None:
    """Replace the file atomically. What is not known is left out, so that ``absent()`` can alert on it.

    Raises:
        OSError: it cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    for name, (description, value) in _values(report, last_run).items():
        if value is not None:
            gauge = Gauge(f"{_PREFIX}_{name}", description, ["environment"], registry=registry)
            gauge.labels(report.environment).set(value)
    write_to_textfile(str(path), registry)
    path.chmod(0o644)  # the collector runs under another account; there is no secret in it


def _values(report: BackupReport, last_run: ScheduledRun | None) -> dict[str, tuple[str, float | None]]:
    figures = report.figures
    created, verified = figures.newest_created, figures.restore_verified
    return {
        "good_count": ("Good backups.", figures.good),
        "bad_count": ("Backups that are not good.", figures.bad),
        "last_success_timestamp_seconds": ("When the newest good backup was made.", _epoch(created)),
        "age_seconds": ("Age of the newest good backup when this was written.", figures.age),
        "size_bytes": ("Size of the newest good backup.", figures.size),
        "duration_seconds": ("How long it took to make it.", figures.duration),
        "last_restore_verification_timestamp_seconds": ("When one was last proven by a restore.", _epoch(verified)),
        "free_bytes": ("Free bytes on the disk of the backups.", figures.free),
        "check_ok": ("1 when no check of the backups fails.", float(report.ok)),
        "last_run_exit_code": ("Exit code of the last scheduled run.", last_run.exit_code if last_run else None),
        "last_run_timestamp_seconds": ("When it ended.", _epoch(last_run.ended if last_run else None)),
    }


def _epoch(when: datetime | None) -> float | None:
    return when.timestamp() if when is not None else None
