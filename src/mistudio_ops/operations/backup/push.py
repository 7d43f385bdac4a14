"""Copying backups elsewhere: ``backup push``. How one copy is made is in ``copy_out``.

One machine writes to a destination at a time: the lock is that of the backup directory here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Literal, Protocol

from mistudio_ops.domain.backup import Manifest, StoredBackup
from mistudio_ops.drivers.destinations import Destination
from mistudio_ops.drivers.destinations.choose import open_destination
from mistudio_ops.errors import NothingFoundError, OpsError, UsageError, VerificationError
from mistudio_ops.operations.backup.copy_out import CopyOut, Sent, prove_copy
from mistudio_ops.operations.backup.remote import look
from mistudio_ops.operations.backup.transfer import PATIENT, Patience, Transfer
from mistudio_ops.operations.backup.workplace import Workplace

Outcome = Literal["copied", "completed", "already there", "proven"]


@dataclass(frozen=True, slots=True)
class Pushed:
    """One backup at one destination: ``files`` and checkpoint ``objects`` that were sent, and their ``bytes``."""

    id: str
    url: str
    outcome: Outcome
    files: int = 0
    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class NotPushed:
    """A copy that failed."""

    id: str
    url: str
    error: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class PushReport:
    """What ``push`` did."""

    pushed: tuple[Pushed, ...]
    failed: tuple[NotPushed, ...] = ()


class _Pushing(Protocol):
    def __call__(self, workplace: Workplace, stored: StoredBackup, url: str, *, patience: Patience) -> Pushed: ...


def push(
    workplace: Workplace,
    which: str | None,
    urls: Sequence[str],
    *,
    verify_only: bool = False,
    lock_wait: float = 0.0,
    patience: Patience = PATIENT,
) -> PushReport:
    """Copy the backup that ``which`` names, or with None every good one, to every destination. Takes the lock.

    With ``verify_only`` nothing is sent: the copies are read back. One that fails keeps none of the others back; a
    single one is raised.

    Raises:
        UsageError: there is no destination.
        LockedError: somebody else works on these backups.
    """
    if not urls:
        raise UsageError(
            "there is no destination",
            hint="--to URL, or backup.destinations in mistudio.toml: /a/folder, ssh://, s3://",
        )
    workplace.directory.prepare()
    with workplace.directory.lock(lock_wait):
        jobs = [(stored, url) for url in urls for stored in _chosen(workplace, which)]
        one: _Pushing = prove_locked if verify_only else push_locked
        if len(jobs) == 1:
            return PushReport((one(workplace, *jobs[0], patience=patience),))
        outcomes = [_attempt(one, workplace, stored, url, patience) for stored, url in jobs]
    pushed = tuple(outcome for outcome in outcomes if isinstance(outcome, Pushed))
    return PushReport(pushed, tuple(outcome for outcome in outcomes if isinstance(outcome, NotPushed)))


def push_locked(workplace: Workplace, stored: StoredBackup, url: str, *, patience: Patience = PATIENT) -> Pushed:
    """Copy one backup to one destination, or complete the copy that is there. The caller holds the lock.

    Raises:
        VerificationError: it is not good, or was damaged since it was verified.
        PreconditionError: another backup of that id is there, or the destination refuses (``DestinationError``).
        UnreachableError: it does not answer, or the connection was cut time and again.
    """
    manifest = _pushable(stored)
    begun = monotonic()
    with open_destination(url, workplace.environ, apart_from=workplace.directory.root) as destination:
        _warn_if_readable(workplace, manifest, destination)
        transfer = Transfer(destination, patience)
        out = CopyOut(workplace.directory, stored, manifest, transfer, workplace.reporter, workplace.now)
        sent = out.run()
    return Pushed(stored.id, url, _outcome(sent), sent.files, sent.objects, sent.bytes, round(monotonic() - begun, 2))


def prove_locked(workplace: Workplace, stored: StoredBackup, url: str, *, patience: Patience = PATIENT) -> Pushed:
    """Read a copy back and compare every hash. The caller holds the lock. A damaged one is marked so there.

    Raises:
        NothingFoundError: no copy of it is there.
        VerificationError: it is damaged. The next push of it sends what is damaged again.
    """
    begun = monotonic()
    with open_destination(url, workplace.environ, apart_from=workplace.directory.root) as destination:
        transfer = Transfer(destination, patience)
        copy = look(transfer).get(stored.id)
        if copy is None or copy.begun:
            raise NothingFoundError(f"there is no copy of {stored.id} at {url}", hint=_push_again(stored, url))
        problems = prove_copy(transfer, copy, workplace.reporter, workplace.now)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise VerificationError(
            f"the copy of {stored.id} at {url} is damaged: {problems[0]}{more}", hint=_push_again(stored, url)
        )
    return Pushed(stored.id, url, "proven", seconds=round(monotonic() - begun, 2))


def _chosen(workplace: Workplace, which: str | None) -> list[StoredBackup]:
    if which is not None:
        return [workplace.directory.find(which)]
    good = [stored for stored in workplace.directory.all() if stored.good]
    if not good:
        raise NothingFoundError(f"there is no good backup in {workplace.directory.root}", hint="mistudio-ops backup")
    return good


def _attempt(
    one: _Pushing, workplace: Workplace, stored: StoredBackup, url: str, patience: Patience
) -> Pushed | NotPushed:
    try:
        return one(workplace, stored, url, patience=patience)
    except OpsError as error:
        return NotPushed(stored.id, url, error.message, error.hint)


def _pushable(stored: StoredBackup) -> Manifest:
    if stored.manifest is None or not stored.good:
        failure = stored.marks.failure
        problem = stored.problem or (failure.reason if failure else None) or "a verification of it failed"
        raise VerificationError(
            f"backup {stored.id} is not good, so it is not copied: {problem}",
            hint=f"mistudio-ops backup verify {stored.id}, or push another: mistudio-ops backup list",
        )
    return stored.manifest


def _warn_if_readable(workplace: Workplace, manifest: Manifest, destination: Destination) -> None:
    if destination.elsewhere and manifest.encryption.scheme == "none":
        workplace.reporter.warning(
            f"backup {manifest.id} is not encrypted: whoever can read {destination.url} can read the database",
            hint="set backup.recipients or a passphrase",
        )


def _outcome(sent: Sent) -> Outcome:
    if sent.there is None:
        return "copied"
    return "already there" if sent.there.stored.good and not sent.files and not sent.objects else "completed"


def _push_again(stored: StoredBackup, url: str) -> str:
    return f"mistudio-ops backup push {stored.id} --to '{url}'"
