"""What beat sends, and when. Messages expire before the next one, so that none pile up while no worker runs."""

from typing import Any

from celery.schedules import crontab

from mistudio_server.workers.names import MAINTENANCE, PREMAKE_PARTITIONS, REAP_RUNS

_REAP_SECONDS = 10.0
_DAY_SECONDS = 86_400

SCHEDULE: dict[str, dict[str, Any]] = {
    "reap-runs": {
        "task": REAP_RUNS,
        "schedule": _REAP_SECONDS,
        "options": {"queue": MAINTENANCE, "expires": _REAP_SECONDS},
    },
    # A quarter past midnight UTC: clear of the archive at 02:00 and of the backup at 03:00.
    "premake-partitions": {
        "task": PREMAKE_PARTITIONS,
        "schedule": crontab(hour="0", minute="15"),
        "options": {"queue": MAINTENANCE, "expires": _DAY_SECONDS},
    },
}
