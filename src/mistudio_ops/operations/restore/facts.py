"""What a restore finds, and what makes it impossible. Nothing is changed here."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import Manifest, StoredBackup, Verification
from mistudio_ops.domain.restore_plan import Loss, RestoreFacts
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.archive_file import DamagedFileError, verify_hash
from mistudio_ops.drivers.backup_directory import LATEST, LATEST_VERIFIED
from mistudio_ops.drivers.catalog import server_major
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import LockedError, PreconditionError, VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.checkpoints import PutBack
from mistudio_ops.operations.restore.known_revisions import check_revision
from mistudio_ops.operations.restore.lab import Lab
from mistudio_ops.operations.restore.loss import measure_loss

#: Beside what a database takes on the server's disk: its write-ahead log while it is loaded.
MARGIN_BYTES = 256 << 20
_GROWTH = 1.1
_MISSING_EXTENSIONS = """
SELECT name FROM unnest(%s::text[]) AS name WHERE name NOT IN (SELECT name FROM pg_available_extensions)
"""

FreeBytes = Callable[[Path], int]


@dataclass(frozen=True, slots=True)
class Found:
    """The facts, the backup that they are about, what opens it, and what restoring it loses."""

    facts: RestoreFacts
    stored: StoredBackup
    identities: tuple[Any, ...]
    loss: Loss


def gather(
    workplace: Workplace,
    access: DatabaseAccess,
    lab: Lab,
    backup: str,
    *,
    token: str,
    jobs: int,
    skip_safety: bool,
    free_bytes: FreeBytes = lambda path: shutil.disk_usage(path).free,
) -> Found:
    """Return what there is, when the backup can be restored here.

    Raises:
        NothingFoundError: there is no such backup.
        VerificationError: it is damaged or known to be bad, or the key at hand does not open it.
        PreconditionError: version, rights, programs, extensions or room are missing.
    """
    stored = find_backup(workplace, backup)
    manifest = _sound(workplace, stored)
    check_revision(manifest)
    _check_server(workplace, access, manifest)
    identities = workplace.identities(stored, workplace.keys())
    exists = databases.exists(access, access.name)
    with_safety = exists and not skip_safety
    missing = PutBack(workplace, stored, identities, token).missing_bytes()
    check_room(workplace, manifest, free_bytes, safety=with_safety, checkpoints=missing)
    _check_hashes(workplace, stored, manifest)
    units = lab.writers()
    facts = RestoreFacts(
        backup=stored.id,
        database=access.name,
        token=token,
        incoming=databases.database_name(access.name, "restore", token),
        aside=databases.database_name(access.name, "before", token),
        exists=exists,
        units=units,
        failing=tuple(lab.failures(0.0)) if units else (),
        checkpoints=manifest.file("checkpoints") is not None,
        skip_safety=skip_safety,
        jobs=jobs,
    )
    return Found(facts, stored, identities, measure_loss(access, manifest, workplace.now(), exists=exists))


def find_backup(workplace: Workplace, text: str) -> StoredBackup:
    """Return the backup that ``text`` names. ``latest`` is none that was made before a restore: it holds the damage.

    Raises:
        NothingFoundError: none fits.
        UsageError: several fit.
    """
    if text not in {LATEST, LATEST_VERIFIED}:
        return workplace.directory.find(text)
    fitting = [
        one
        for one in workplace.directory.all()
        if one.good
        and one.manifest
        and one.manifest.kind != "pre-restore"
        and (text == LATEST or one.marks.verified("restore"))
    ]
    return fitting[-1] if fitting else workplace.directory.find(text)


def _sound(workplace: Workplace, stored: StoredBackup) -> Manifest:
    if stored.good and stored.manifest is not None:
        return stored.manifest
    failure = stored.marks.failure
    why = stored.problem or (f"its {failure.level} verification failed: {failure.reason}" if failure else "unknown")
    good = [one.id for one in workplace.directory.all() if one.good]
    raise VerificationError(
        f"backup {stored.id} cannot be used: {why}",
        hint=f"the newest good one is {good[-1]}" if good else "there is no good backup in mistudio-ops backup list",
    )


def _check_server(workplace: Workplace, access: DatabaseAccess, manifest: Manifest) -> None:
    wanted = manifest.database
    with access.admin_session() as connection:
        major = server_major(connection)
        missing = [str(row[0]) for row in connection.execute(_MISSING_EXTENSIONS, (list(wanted.extensions),))]
    if major < wanted.server_major:
        raise PreconditionError(
            f"backup {manifest.id} is of PostgreSQL {wanted.server_version}, and the server here is older: {major}",
            hint=f"restore it on PostgreSQL {wanted.server_major} or later",
        )
    if missing:
        raise PreconditionError(
            f"the server lacks the extensions {', '.join(missing)}, which backup {manifest.id} needs",
            hint=f"install them on the database's machine, as in: apt-get install postgresql-contrib-{major}",
        )
    databases.require_createdb(access)
    find_tools(major, access, workplace.environment.backup)


def check_room(
    workplace: Workplace, manifest: Manifest, free_bytes: FreeBytes, *, safety: bool, checkpoints: int
) -> None:
    """Make sure that everything fits; what lies on one disk is added up.

    Raises:
        PreconditionError: it names the disk, what is needed there and for what.
    """
    needs: dict[int, list[tuple[Path, int, str]]] = defaultdict(list)
    for wanted, size, what in _needs(workplace, manifest, safety=safety, checkpoints=checkpoints):
        path = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
        needs[path.stat().st_dev].append((path, size, what))
    for there in needs.values():
        path, total = there[0][0], sum(size for _, size, _ in there)
        free = free_bytes(path)
        if free < total:
            raise PreconditionError(
                f"{path} has {free / 1e6:.0f} MB free; restoring {manifest.id} needs {total / 1e6:.0f} MB there: "
                + ", ".join(f"{size / 1e6:.0f} MB for {what}" for _, size, what in there),
                hint="free some space there; mistudio-ops restore finalize drops databases that earlier restores kept",
            )


def _needs(
    workplace: Workplace, manifest: Manifest, *, safety: bool, checkpoints: int
) -> Iterator[tuple[Path, int, str]]:
    environment = workplace.environment
    if environment.database_url is None:
        yield environment.paths.postgres, int(manifest.database.size_bytes * _GROWTH) + MARGIN_BYTES, "the database"
    if safety:
        yield workplace.directory.root, int(manifest.size * _GROWTH) + MARGIN_BYTES // 4, "a backup of the current one"
    if checkpoints:
        yield environment.data, checkpoints, "checkpoints"


def _check_hashes(workplace: Workplace, stored: StoredBackup, manifest: Manifest) -> None:
    """Compare each file with the manifest. A failure is marked, so that nobody takes this backup for a good one."""
    folder = workplace.directory.path(stored.id)
    try:
        with workplace.reporter.step(f"check the files of backup {stored.id}", total=max(1, manifest.size)) as step:
            for entry in manifest.files:
                verify_hash(folder / entry.name, entry, on_bytes=step.advance)
    except DamagedFileError as error:
        with suppress(LockedError, OSError), workplace.directory.lock():
            workplace.directory.record(stored.id, Verification("hash", workplace.now(), ok=False, reason=error.message))
        good = [one.id for one in workplace.directory.all() if one.good and one.id != stored.id]
        raise DamagedFileError(
            error.message,
            hint=f"the newest good backup is {good[-1]}"
            if good
            else "there is no other good backup here; is there one elsewhere? mistudio-ops backup pull",
        ) from error
