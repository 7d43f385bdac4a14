"""What every operation on backups works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import Role, StoredBackup
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.archive_file import OnBytes, Sink, read_archive
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.drivers.database_access import DatabaseAccess, database_access
from mistudio_ops.drivers.encryption import KEY_FILE, Keys, load_keys, opening
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.errors import VerificationError
from mistudio_ops.presentation.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Workplace:
    """One environment's backups. ``environ`` may hold a passphrase; ``now`` is the wall clock in UTC.

    ``config_file`` is the mistudio.toml that the environment came from, where there is one.
    """

    environment: Environment
    reporter: Reporter
    environ: Mapping[str, str]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    config_file: Path | None = None

    @property
    def directory(self) -> BackupDirectory:
        """Where the backups are."""
        return BackupDirectory(self.environment.backups)

    def access(self) -> DatabaseAccess:
        """Return how to reach the database; its passwords are hidden from every output from now on.

        Raises:
            PreconditionError: the environment was never deployed.
        """
        secrets = read_secrets(self.environment.paths.secrets)
        if secrets is not None:
            self.reporter.hide(*secrets.all())
        access = database_access(self.environment, secrets)
        self.reporter.hide(*(login.password for login in (access.owner, access.admin) if login.password))
        return access

    def keys(self, *, writing: bool = False) -> Keys:
        """Return the keys to read with; for ``writing``, a passphrase's key is made where there is none yet.

        Raises:
            UsageError: what is configured cannot be used.
        """
        keys = load_keys(self.environment.backup, self.environ, self.directory.root if writing else None)
        if keys.passphrase:
            self.reporter.hide(keys.passphrase)
        return keys

    def identities(self, stored: StoredBackup, keys: Keys) -> tuple[Any, ...]:
        """Return what opens the files of a backup.

        Raises:
            WrongKeyError: nothing at hand can.
            VerificationError: it has no sound manifest.
        """
        if stored.manifest is None:
            raise VerificationError(f"backup {stored.id} cannot be used: {stored.problem}")
        path = self.directory.path(stored.id) / KEY_FILE
        return opening(keys, stored.manifest.encryption, path.read_bytes() if path.is_file() else None)

    def read(
        self,
        stored: StoredBackup,
        role: Role,
        identities: tuple[Any, ...],
        sink: Sink,
        *,
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Send the content of one of its files to ``sink``; see ``read_archive``.

        Raises:
            VerificationError: there is no such file, or it is damaged.
        """
        entry = stored.manifest.file(role) if stored.manifest else None
        if entry is None:
            raise VerificationError(f"backup {stored.id} holds no {role}: {stored.problem or 'it was not included'}")
        read_archive(self.directory.path(stored.id) / entry.name, entry, identities, sink, on_bytes=on_bytes)
