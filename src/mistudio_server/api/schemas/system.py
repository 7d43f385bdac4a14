"""Tokens, health, and what the machine and the queues look like."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from mistudio_server.api.schemas.common import Name, Request, Resource
from mistudio_server.services.tokens import TokenScope


class TokenCreate(Request):
    """A token to make."""

    name: Name
    scopes: list[TokenScope] = Field(default=[TokenScope.READ], min_length=1, max_length=3)
    expires_days: int | None = Field(None, ge=1, le=3650, description="Never, when not given.")


class TokenOut(Resource):
    """A token; its secret is not kept."""

    name: str
    scopes: list[TokenScope]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class TokenCreated(TokenOut):
    """A token just made."""

    token: str = Field(description="Shown this once.", examples=["mst_" + "x" * 43])


class TokenList(BaseModel):
    """All tokens."""

    items: list[TokenOut]


class CheckOut(BaseModel):
    """One check of health."""

    model_config = ConfigDict(from_attributes=True)

    ok: bool
    latency_ms: float
    evidence: str
    hint: str | None


class HealthOut(BaseModel):
    """What was checked, and whether all of it is well."""

    status: str = Field(description="`healthy` or `unhealthy`.")
    version: str
    release: str
    instance: str
    checks: dict[str, CheckOut]


class StateOut(BaseModel):
    """The state of this instance alone."""

    status: str = Field(examples=["live"])


class HostOut(BaseModel):
    """Load of the host. Memory in MiB."""

    model_config = ConfigDict(from_attributes=True)

    hostname: str
    cpu_count: int
    cpu_percent: float
    load_average: list[float]
    memory_total_mb: float
    memory_used_mb: float
    disk_total_mb: float = Field(description="Of the disk that DATA_DIR is on.")
    disk_free_mb: float
    uptime_seconds: float


class GpuOut(BaseModel):
    """One GPU. What the driver does not tell is null."""

    model_config = ConfigDict(from_attributes=True)

    index: int
    name: str
    utilization_percent: float | None
    memory_total_mb: float | None
    memory_used_mb: float | None
    temperature_celsius: float | None
    power_watts: float | None


class GpuList(BaseModel):
    """Every NVIDIA GPU of this host."""

    items: list[GpuOut]


class QueueOut(BaseModel):
    """One queue: jobs that wait in the database, and wake-up messages in Redis (null: Redis is out)."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    depth: int
    oldest_queued_at: datetime | None
    messages: int | None


class QueueList(BaseModel):
    """The queues."""

    items: list[QueueOut]


class VersionOut(BaseModel):
    """What runs here."""

    version: str
    release: str
    instance: str
    python: str
    schema_revision: str | None
    postgres: str
    torch_installed: bool
