"""The form of ``mistudio.toml``. Every key is optional; an unknown one is an error."""

import re
from datetime import time
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from mistudio_ops.domain.environment import MAX_BACKENDS, REDIS_OFFSET

#: Below 1024 a port needs privileges; an environment's ports are a block that starts at its public one.
LOWEST_PORT = 1024
HIGHEST_PORT = 65535 - REDIS_OFFSET
MAX_WORKERS = 32

_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


def _address(value: str) -> str:
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("it must be an IP address of this machine, such as 127.0.0.1") from None


def _postgres_url(value: str) -> str:
    scheme = urlsplit(value).scheme
    if scheme not in {"postgresql", "postgresql+psycopg"}:
        raise ValueError("it must look like postgresql+psycopg://user@host:5432/database")
    return value.replace("postgresql://", "postgresql+psycopg://", 1)


def _redis_url(value: str) -> str:
    if urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("it must look like redis://host:6379/0 (rediss:// and unix:// work too)")
    return value


def _destination(value: str) -> str:
    parts = urlsplit(value)
    if parts.password:
        raise ValueError("a password does not belong in this file")
    if parts.scheme in {"ssh", "s3"} and parts.hostname:
        return value
    if parts.scheme in {"", "file"} and parts.path.startswith("/"):
        return value
    raise ValueError("it must be /a/folder, ssh://user@host/folder or s3://bucket/prefix")


def _time_of_day(value: Any) -> str:
    """Take a time of the file (``03:00:00`` without quotes) too. Seconds and time zones would be lost in a crontab."""
    if isinstance(value, time):
        value = value.isoformat().removesuffix(":00")
    found = _TIME_OF_DAY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("it must be a time of day such as 03:00")
    return f"{int(found[1]):02d}:{found[2]}"


def _recipient(value: str) -> str:
    if value.startswith(("age1", "ssh-ed25519 ", "ssh-rsa ")):
        return value
    raise ValueError("it must be an age recipient (age1...) or an SSH public key")


def _split(value: Any) -> Any:
    """Variables and flags give lists as text, separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Destinations = Annotated[list[Annotated[str, AfterValidator(_destination)]], BeforeValidator(_split)]
Recipients = Annotated[list[Annotated[str, AfterValidator(_recipient)]], BeforeValidator(_split)]
Parts = Annotated[list[Literal["checkpoints"]], BeforeValidator(_split)]
Kept = Annotated[int, Field(ge=0, le=1000)]


class BackupTable(BaseModel):
    """``[environments.NAME.backup]``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    directory: Path | None = Field(None, description="Where backups are kept; default: beside state_dir.")
    include: Parts = Field(default_factory=list, description="What is backed up beside the database: checkpoints.")
    recipients: Recipients = Field(default_factory=list, description="age or SSH public keys that can read backups.")
    identity_file: Path | None = Field(None, description="The private key, where this machine may read its backups.")
    passphrase_file: Path | None = Field(None, description="File of mode 0600 with a passphrase, instead of a key.")
    keep_daily: Annotated[int, Field(ge=1, le=1000)] = Field(7, description="Days with a good backup that are kept.")
    keep_weekly: Kept = Field(4, description="Weeks, likewise.")
    keep_monthly: Kept = Field(3, description="Months, likewise.")
    keep_pre_days: Kept = Field(14, description="Days that backups made before a restore or a migration stay.")
    destinations: Destinations = Field(default_factory=list, description="Where the scheduled backup is copied to.")
    at: Annotated[str, BeforeValidator(_time_of_day)] = Field("03:00", description="When the scheduled backup runs.")
    max_age_hours: int = Field(26, ge=1, description="Age of the newest at which `backup check` fails.")
    textfile: Path | None = Field(None, description="Prometheus textfile that backups and checks write.")
    tools_image: str | None = Field(None, description="Image with pg_dump, where the machine has no fitting one.")


class EnvironmentTable(BaseModel):
    """``[environments.NAME]``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    engine: Literal["process"] = Field("process", description="Where the units run: processes of this machine.")
    host: Annotated[str, AfterValidator(_address)] = Field("127.0.0.1", description="Address of the public port.")
    port: int = Field(
        8700,
        ge=LOWEST_PORT,
        le=HIGHEST_PORT,
        description=f"Public port; the {REDIS_OFFSET} ports above it are used too.",
    )
    backends: int = Field(3, ge=1, le=MAX_BACKENDS, description="API instances.")
    workers: int = Field(1, ge=1, le=MAX_WORKERS, description="Worker processes.")
    state_dir: Path | None = Field(None, description="Everything the environment keeps is below it.")
    data_dir: Path | None = Field(None, description="Datasets, models and checkpoints; default: data in state_dir.")
    prefer: Literal["system", "embedded"] = Field("system", description="Which server programs are looked for first.")
    run_as: str | None = Field(None, min_length=1, description="Account of the servers when mistudio-ops runs as root.")
    database_url: Annotated[str, AfterValidator(_postgres_url)] | None = Field(
        None, description="PostgreSQL that exists already; default: one of our own."
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None, description="Redis or Valkey that exists already; default: one of our own."
    )
    database_admin_url: Annotated[str, AfterValidator(_postgres_url)] | None = Field(
        None, description="The same server, as a role that may create databases; for restores."
    )
    database_container: str | None = Field(None, min_length=1, description="Docker container that PostgreSQL runs in.")
    backup: BackupTable = Field(default_factory=BackupTable, description="Where backups go and how long they stay.")
    server: dict[str, Any] = Field(default_factory=dict, description="Settings of the server, as in training_slots.")


class ConfigFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    environments: dict[Name, EnvironmentTable] = Field(default_factory=dict)
