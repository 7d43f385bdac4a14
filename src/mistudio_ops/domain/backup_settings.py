"""What the operator said about backups: ``[environments.NAME.backup]``. Pure values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Part = Literal["checkpoints"]


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """Where backups go, who can read them, how long they stay, and who is told.

    ``directory`` None: beside the state directory, which ``down --purge`` does not touch. ``max_age_hours`` is the age
    at which ``backup check`` complains. ``passphrase`` is a secret: it comes from a variable or a file, never from
    mistudio.toml.
    """

    directory: Path | None = None
    include: tuple[Part, ...] = ()
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    passphrase_file: Path | None = None
    keep_daily: int = 7
    keep_weekly: int = 4
    keep_monthly: int = 3
    keep_pre_days: int = 14
    destinations: tuple[str, ...] = ()
    at: str = "03:00"
    max_age_hours: int = 26
    textfile: Path | None = None
    tools_image: str | None = None
