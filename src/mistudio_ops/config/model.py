"""The form of ``mistudio.toml``. Every key is optional; an unknown one is an error."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from mistudio_ops.domain.environment import MAX_BACKENDS, REDIS_OFFSET

#: Below 1024 a port needs privileges; an environment's ports are a block that starts at its public one.
LOWEST_PORT = 1024
HIGHEST_PORT = 65535 - REDIS_OFFSET
MAX_WORKERS = 32

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
    server: dict[str, Any] = Field(default_factory=dict, description="Settings of the server, as in training_slots.")


class ConfigFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    environments: dict[Name, EnvironmentTable] = Field(default_factory=dict)
