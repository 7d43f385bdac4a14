"""Telling people that a scheduled backup failed, and that it works again."""

from collections.abc import Callable

from mistudio_ops.domain.scheduled_run import ScheduledRun
from mistudio_ops.drivers.messages import NOTIFY_VARIABLE, require, send, split_urls
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.backup.workplace import Workplace


def notify_urls(workplace: Workplace) -> tuple[str, ...]:
    """Return who is told, and hide these URLs from every output: they hold secrets."""
    urls = split_urls(workplace.environ.get(NOTIFY_VARIABLE, ""))
    workplace.reporter.hide(*urls)
    return urls


def require_notify(workplace: Workplace) -> None:
    """Check that messages could be sent.

    Raises:
        PreconditionError: apprise is not installed.
        UsageError: it does not know what one of the URLs means.
    """
    urls = notify_urls(workplace)
    if urls:
        require(urls)


def notify_outcome(
    workplace: Workplace,
    run: ScheduledRun,
    before: ScheduledRun | None,
    *,
    mask: Callable[[str], str] = str,
) -> bool:
    """Tell of a failure, and of the first success after one. True when there was something to tell.

    A message that cannot be delivered only warns: the backup is what it is.
    """
    urls = notify_urls(workplace)
    good = not run.failures
    if not urls or (good and (before is None or not before.failures)):
        return False
    word = "works again" if good else "FAILED"
    try:
        send(urls, f"MiStudio backup of {run.environment} {word}", mask(message(workplace, run)), good=good)
    except OpsError as error:
        workplace.reporter.warning(error.message, hint=error.hint)
    return True


def message(workplace: Workplace, run: ScheduledRun) -> str:
    """Return the text: each stage, and what to type next."""
    lines = [f"{run.environment}, {run.begun:%Y-%m-%d %H:%M} UTC, backups in {workplace.directory.root}"]
    for stage in run.stages:
        lines.append(f"{stage.outcome:<8}{stage.name}{f': {stage.detail}' if stage.detail else ''}")
        if stage.hint:
            lines.append(f"        {stage.hint}")
    return "\n".join(lines)
