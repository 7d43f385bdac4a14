"""Backups of a test's own database, made step by step: what a test wants to be wrong can be made wrong."""

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import DatabaseFacts, Kind, Manifest, StoredBackup, TableRows, new_id
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers import catalog
from mistudio_ops.drivers.archive_file import file_suffix, write_archive, write_plain
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import KEY_FILE
from mistudio_ops.drivers.pg_tools import PgTools, Streams
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.recording import RecordingReporter


def environment_of(database_url: str, folder: Path = Path("/nonexistent"), **backup: Any) -> Environment:
    """Return an environment on an existing database; its state and backups are below ``folder``."""
    settings = BackupSettings(directory=folder / "backups", **backup)
    return Environment(name="local", state_dir=folder / "state", database_url=database_url, backup=settings)


def workplace_of(database_url: str, folder: Path, environ: Mapping[str, str] | None = None, **backup: Any) -> Workplace:
    """Return a workplace with a recording reporter, its directory prepared."""
    workplace = Workplace(environment_of(database_url, folder, **backup), RecordingReporter(), environ or {})
    workplace.environment.state_dir.mkdir(parents=True, exist_ok=True)
    workplace.directory.prepare()
    return workplace


def tools_for(access: DatabaseAccess) -> PgTools:
    """Return the client programs of the test server's own version."""
    with access.session() as connection:
        return find_tools(catalog.server_major(connection), access, BackupSettings())


def facts_of(access: DatabaseAccess) -> DatabaseFacts:
    """Return what the manifest says of the database."""
    with access.session() as connection:
        return catalog.database_facts(connection, access.name)


def rows_of(access: DatabaseAccess, dbname: str | None = None) -> tuple[TableRows, ...]:
    """Count every table."""
    with access.session(dbname) as connection:
        return catalog.row_counts(connection)


def fill(access: DatabaseAccess) -> None:
    """Write a small studio: a dataset, two trainings with metrics (archived ones too), checkpoints and features."""
    with access.session() as connection:
        connection.execute(_ROWS)


_ROWS = """
INSERT INTO datasets (id, name, kind, path, status) VALUES ('ds_1', 'one', 'activations', 'datasets/1', 'ready');
INSERT INTO trainings (id, name, dataset_id, status, hyperparameters, total_steps)
SELECT 'tr_' || n, 'run ' || n, 'ds_1', 'paused', '{"lr": 0.1}', 50 FROM generate_series(1, 2) n;
INSERT INTO training_metrics (training_id, step, timestamp, loss)
SELECT 'tr_' || n, step, now() - step * interval '1 second', step / 7.0
FROM generate_series(1, 2) n, generate_series(1, 50) step;
INSERT INTO training_metrics_archive (id, training_id, step, timestamp, loss)
SELECT nextval('training_metrics_id_seq'), 'tr_1', -step, now() - interval '20 days', 1
FROM generate_series(1, 5) step;
INSERT INTO checkpoints (id, training_id, step, path, size_bytes, sha256)
SELECT 'ck_' || n, 'tr_' || n, 50, 'checkpoints/' || n, 7, repeat('a', 64) FROM generate_series(1, 2) n;
INSERT INTO features (id, training_id, index) SELECT 'ft_' || n, 'tr_' || n, n FROM generate_series(1, 2) n;
INSERT INTO feature_activations (feature_id, activation) SELECT id, 0.5 FROM features, generate_series(1, 3);
"""


def make_backup(workplace: Workplace, *, kind: Kind = "manual", created: datetime | None = None) -> StoredBackup:
    """Dump the workplace's database into its directory, as the real command does, and publish it."""
    keys = workplace.keys(writing=True)
    access, directory = workplace.access(), workplace.directory
    created = created or datetime.now(UTC)
    backup_id = new_id(created, secrets.token_hex(4))
    with directory.partial(backup_id) as folder:
        entry = write_archive(_Dump(access), folder / f"database.dump{file_suffix(keys.encryption)}", "database", keys)
        files = [entry]
        if keys.key_file is not None:
            files.append(write_plain(keys.key_file, folder / KEY_FILE, "key"))
        manifest = Manifest(
            id=backup_id, sequence=directory.next_sequence(), kind=kind, environment="local", created=created,
            database=facts_of(access), tables=rows_of(access), files=tuple(files), encryption=keys.encryption,
            versions={"pg_dump": tools_for(access).version},
        )  # fmt: skip
        directory.publish(manifest)
    return directory.get(backup_id)


def rewrite_manifest(workplace: Workplace, stored: StoredBackup, **changes: Any) -> StoredBackup:
    """Edit a manifest and give it the sha256 that fits: what somebody with intent would do."""
    assert stored.manifest is not None
    path = workplace.directory.path(stored.id) / "manifest.json"
    path.write_bytes(replace(stored.manifest, **changes).render())
    return workplace.directory.get(stored.id)


class _Dump:
    """The output of pg_dump, which must end well."""

    def __init__(self, access: DatabaseAccess) -> None:
        arguments = ["-Fc", "-Z0", "--no-password"]
        self._process = tools_for(access).start(
            "pg_dump", arguments, access.owner, access.name, application="test", streams=Streams(stdout=subprocess.PIPE)
        )

    def readinto(self, buffer: Any, /) -> int:
        """Read on; a dump that failed is no end."""
        assert self._process.stdout is not None
        count = self._process.stdout.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            self._process.stdout.close()
            assert self._process.wait() == 0
        return int(count)
