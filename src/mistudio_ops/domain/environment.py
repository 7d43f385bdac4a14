"""An environment: what the operator configured, and where its ports and files are. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from mistudio_ops.domain.backup_settings import BackupSettings

#: Ports of an environment are a block that starts at its public port; offsets within it.
BACKEND_OFFSET = 1
INTERNAL_OFFSET = 21
POSTGRES_OFFSET = 41
REDIS_OFFSET = 42
MAX_BACKENDS = 20


@dataclass(frozen=True, slots=True)
class EnvironmentPaths:
    """Where an environment keeps its state. Nothing of it is written anywhere else."""

    root: Path

    @property
    def data(self) -> Path:
        """Default DATA_DIR."""
        return self.root / "data"

    @property
    def secrets(self) -> Path:
        """Generated passwords and tokens, mode 0600: ``.env.<name>`` is rendered from it."""
        return self.root / "secrets.json"

    @property
    def config(self) -> Path:
        """Rendered configuration of the servers."""
        return self.root / "config"

    @property
    def run(self) -> Path:
        """Sockets and pid files, mode 0700."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file per unit."""
        return self.root / "logs"

    @property
    def postgres(self) -> Path:
        """PGDATA."""
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        """Append-only file of the store."""
        return self.root / "redis"

    @property
    def runtime(self) -> Path:
        """Programs copied to where the account of the servers reaches them."""
        return self.root / "runtime"

    @property
    def releases(self) -> Path:
        """One folder per release."""
        return self.root / "releases"

    @property
    def journal(self) -> Path:
        """SQLite journal of operations."""
        return self.root / "journal.sqlite3"

    @property
    def lock(self) -> Path:
        """Lock file of operations; never unlinked."""
        return self.root / "lock"


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, fully resolved."""

    name: str
    state_dir: Path
    engine: Literal["process"] = "process"
    host: str = "127.0.0.1"
    port: int = 8700
    backends: int = 3
    workers: int = 1
    run_as: str | None = None
    prefer: Literal["system", "embedded"] = "system"
    database_url: str | None = None
    redis_url: str | None = None
    database_admin_url: str | None = None
    database_container: str | None = None
    data_dir: Path | None = None
    server: Mapping[str, str] = field(default_factory=dict)
    backup: BackupSettings = field(default_factory=BackupSettings)

    @property
    def paths(self) -> EnvironmentPaths:
        """Where its files are."""
        return EnvironmentPaths(self.state_dir)

    @property
    def data(self) -> Path:
        """DATA_DIR."""
        return self.data_dir or self.paths.data

    @property
    def backups(self) -> Path:
        """Where its backups are: beside the state directory by default, so that a purge does not remove them."""
        return self.backup.directory or self.state_dir.with_name(f"{self.state_dir.name}.backups")

    @property
    def url(self) -> str:
        """Public base URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """True when nobody outside this machine can reach it; a name other than localhost may lead anywhere."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def postgres_port(self) -> int:
        """Loopback port of the embedded PostgreSQL."""
        return self.port + POSTGRES_OFFSET

    @property
    def redis_port(self) -> int:
        """Loopback port of the embedded store."""
        return self.port + REDIS_OFFSET

    def backend_port(self, number: int) -> int:
        """Loopback port of backend ``number`` (from 1)."""
        return self.port + BACKEND_OFFSET + number - 1

    def internal_port(self, number: int) -> int:
        """Loopback port of /metrics and /internal of backend ``number`` (from 1)."""
        return self.port + INTERNAL_OFFSET + number - 1
