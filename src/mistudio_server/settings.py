"""Settings of the runtime, read from environment variables (and ``.env`` where one is named).

This is the one module that ``mistudio_ops`` shares: it renders these variables for the units that it starts.
"""

from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DATABASE_DRIVER = "postgresql+psycopg"


class Settings(BaseSettings):
    """Every setting of ``mistudio-server``, with its default. Variable names are the field names in capitals."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # Where things are.
    database_url: SecretStr = Field(
        SecretStr("postgresql+psycopg://mistudio@localhost:5432/mistudio"), description="PostgreSQL, driver named."
    )
    redis_url: SecretStr = Field(SecretStr("redis://localhost:6379/0"), description="Celery's broker and results.")
    redis_ws_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/1"), description="Socket.IO's bus. Pub/sub ignores the DB number."
    )
    redis_prefix: str = Field(
        "mistudio", pattern=r"^[A-Za-z0-9:_-]+$", description="Prefix of every key and channel; one per environment."
    )
    data_dir: Path = Field(Path("data"), description="Datasets, models, activations and checkpoints live below it.")
    websocket_emit_url: str | None = Field(
        None, description="Where a worker that cannot reach Redis posts its events: .../internal/events."
    )
    internal_token: SecretStr | None = Field(None, description="Shared secret of the internal listener.")

    # Who runs it.
    mistudio_release: str = Field("dev", description="Release that this process belongs to.")
    mistudio_instance: str = Field("backend", description="Name of this unit, as in backend-1.")

    # HTTP.
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=1, le=65535)
    internal_host: str = Field("127.0.0.1", description="Address of /metrics and /internal; never behind the proxy.")
    internal_port: int | None = Field(None, ge=1, le=65535, description="Off when unset.")
    auth_required: bool | None = Field(None, description="Default: required unless bound to loopback.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field((), description="Exact origins, comma separated.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Limit of a JSON body.")
    max_upload_bytes: int = Field(8 * 1024**3, ge=1024, description="Limit of an uploaded file.")
    shutdown_grace_seconds: int = Field(8, ge=1, description="For requests in flight after SIGTERM.")

    # Database.
    db_pool_size: int = Field(20, ge=1)
    db_max_overflow: int = Field(40, ge=0)
    db_pool_timeout_seconds: float = Field(10.0, gt=0)
    db_pool_pre_ping: bool = True

    # Trainings.
    training_slots: int = Field(
        1, ge=1, description="Heavy jobs (trainings, extractions) that one worker runs at once."
    )
    training_heartbeat_seconds: float = Field(5.0, gt=0)
    training_heartbeat_timeout_seconds: float = Field(30.0, gt=0, description="Silence after which a run is requeued.")
    training_max_attempts: int = Field(3, ge=1, description="Deaths of its worker after which a run is failed.")
    training_metric_archive_days: int = Field(30, ge=1, description="Age at which metrics move to the archive.")
    torch_num_threads: int | None = Field(None, ge=1, description="Default: torch's own choice.")

    # Maintenance.
    lock_wait_seconds: float = Field(
        600.0, ge=0, le=86_400, description="Seconds that a migration waits for a backup or the archiver to end."
    )

    # Logs.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("database_url")
    @classmethod
    def _names_the_driver(cls, value: SecretStr) -> SecretStr:
        scheme = urlsplit(value.get_secret_value()).scheme
        if scheme != DATABASE_DRIVER:
            raise ValueError(
                f"DATABASE_URL must name the driver: write {DATABASE_DRIVER}://user:password@host:port/database, "
                f"not {scheme or 'a bare path'}://..."
            )
        return value

    @field_validator("redis_url", "redis_ws_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        scheme = urlsplit(value.get_secret_value()).scheme
        if scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(f"a Redis URL starts with redis://, rediss:// or unix://, not {scheme or 'nothing'}://")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if "*" in origin or parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
                raise ValueError(f"CORS_ORIGINS takes exact origins such as https://lab.example, not {origin!r}")
        return value

    @model_validator(mode="after")
    def _tokenless_only_on_loopback(self) -> "Settings":
        if self.auth_required is False and not self.bound_to_loopback:
            raise ValueError(f"AUTH_REQUIRED=false is refused while HOST is {self.host}: bind to 127.0.0.1 instead")
        return self

    @cached_property
    def bound_to_loopback(self) -> bool:
        """True when nobody outside this machine can reach the API."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def needs_token(self) -> bool:
        """True when a request must carry a bearer token."""
        return not self.bound_to_loopback if self.auth_required is None else self.auth_required
