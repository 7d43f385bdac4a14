"""Making one copy at one destination, and reading one back.

The order is what makes it safe: first the files of the backup and the checkpoint objects that are not there yet, each
read back and hashed, and the manifest last. Killed anywhere, there is no manifest and so no backup, and the next push
goes on: what is there and sound stays. Stores are read back too: what compatible ones say about checksums differs too
much to rely on, and reading is the one proof that it can be read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mistudio_ops.domain.backup import MANIFEST_FILE, MARKS_FILE, Manifest, Marks, StoredBackup, Verification
from mistudio_ops.domain.backup_copy import OBJECTS, name_in, travelling
from mistudio_ops.drivers.backup_directory import BackupDirectory
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.backup.copied_objects import objects_here
from mistudio_ops.operations.backup.remote import Copies, Copy, look
from mistudio_ops.operations.backup.transfer import Damaged, Transfer
from mistudio_ops.presentation.reporter import Reporter, Step


@dataclass(frozen=True, slots=True)
class Sent:
    """What a copy took: ``files`` and ``objects`` that were sent, their ``bytes``. ``there`` is what was found."""

    there: Copy | None
    files: int = 0
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """A file of a copy, and whether one of that name and size is there already. ``shared``: a checkpoint object."""

    path: Path
    name: str
    size: int
    sha256: str
    present: bool
    shared: bool = False


@dataclass(frozen=True, slots=True)
class CopyOut:
    """One backup on its way to one destination."""

    directory: BackupDirectory
    stored: StoredBackup
    manifest: Manifest
    transfer: Transfer
    reporter: Reporter
    now: Callable[[], datetime]

    def run(self) -> Sent:
        """Make the copy, or complete it.

        Raises:
            PreconditionError: another backup of that id is there, or the destination refuses.
            VerificationError: what is here, or what arrived, is not what was written.
        """
        copies = look(self.transfer)
        there = copies.get(self.stored.id)
        self._refuse_another(there)
        self._remove_partials(copies)
        pieces = [*self._files(copies), *self._objects(copies)]
        todo = [piece for piece in pieces if not piece.present or self._doubtful(piece, there, copies)]
        if not todo and there is not None and there.stored.good:
            self._mark(there.stored.marks)
            return Sent(there)
        sent = self._deliver_all(todo)
        self._complete(pieces, there)
        return Sent(there, sum(not one.shared for one in sent), sum(one.shared for one in sent), _bytes(sent))

    def _doubtful(self, piece: _Piece, there: Copy | None, copies: Copies) -> bool:
        """Return whether nothing vouches for a file that is there: it may be that of a push that was killed."""
        if there is not None and there.stored.good:
            return False
        copy_failed = there is not None and there.stored.marks.failure is not None
        return copy_failed or not piece.shared or piece.name not in copies.vouched

    def _deliver_all(self, todo: list[_Piece]) -> list[_Piece]:
        total = sum(piece.size * (1 if piece.present else 2) for piece in todo)
        title = f"copying {self.stored.id} to {self.transfer.destination.url}"
        with self.reporter.step(title, total=max(1, total)) as step:
            sent = [piece for piece in todo if self._deliver(piece, step)]
            step.detail(_what(sent))
        return sent

    def _deliver(self, piece: _Piece, step: Step) -> bool:
        """Bring a piece there; return whether it had to be sent."""
        step.detail(piece.name)
        if piece.present:
            try:
                self.transfer.prove(piece.name, piece.size, piece.sha256, step)
            except Damaged:
                self.reporter.note(f"{piece.name} at {self.transfer.destination.url} is damaged: it is sent again")
            else:
                return False
        self.transfer.send(piece.path, piece.name, piece.size, piece.sha256, step)
        return True

    def _complete(self, pieces: list[_Piece], there: Copy | None) -> None:
        """Look once more whether all is there, and only then write the manifest."""
        sizes = self.transfer.names()
        missing = [piece.name for piece in pieces if sizes.get(piece.name) != piece.size]
        if missing:
            raise PreconditionError(
                f"{missing[0]} is gone from {self.transfer.destination.url} again",
                hint="does another machine prune there? Give each machine a folder of its own",
            )
        self._mark(there.stored.marks if there else Marks(), proven=True)
        self.transfer.put(name_in(self.manifest.id, MANIFEST_FILE), self.manifest.render())

    def _refuse_another(self, there: Copy | None) -> None:
        found = there.stored.manifest if there else None
        if found is not None and found.id == self.manifest.id and found.render() != self.manifest.render():
            raise PreconditionError(
                f"another backup {found.id} is at {self.transfer.destination.url}: "
                f"that of {found.environment}, made {found.created:%Y-%m-%d %H:%M:%S}",
                hint="give each machine a folder of its own",
            )

    def _remove_partials(self, copies: Copies) -> None:
        """Remove what a killed push left half-written where this one writes."""
        ours = (f"{self.manifest.id}/", f"{OBJECTS}/{self.manifest.encryption.fingerprint}/")
        for name in copies.partials:
            if name.startswith(ours):
                self.transfer.remove(name)

    def _files(self, copies: Copies) -> list[_Piece]:
        folder = self.directory.path(self.manifest.id)
        named = [(name_in(self.manifest.id, entry.name), entry) for entry in self.manifest.files]
        return [
            _Piece(folder / entry.name, name, entry.size, entry.sha256, copies.sizes.get(name) == entry.size)
            for name, entry in named
        ]

    def _objects(self, copies: Copies) -> list[_Piece]:
        objects = objects_here(self.directory, self.stored)
        return [
            _Piece(self.directory.root / one.name, one.name, one.size, one.sha256, present, shared=True)
            for one in objects
            for present in (copies.sizes.get(one.name) == one.size,)
        ]

    def _mark(self, there: Marks, *, proven: bool = False) -> None:
        """Bring pins and proofs up to date there."""
        verification = Verification("hash", self.now(), ok=True) if proven else None
        marks = travelling(self.stored.marks, there, verification)
        if marks != there:
            self.transfer.put(name_in(self.manifest.id, MARKS_FILE), marks.render())


def prove_copy(transfer: Transfer, copy: Copy, reporter: Reporter, now: Callable[[], datetime]) -> list[str]:
    """Read a whole copy back and compare every hash; note the outcome in its marks there. Return what is wrong."""
    stored, manifest = copy.stored, copy.stored.manifest
    problems = [stored.problem] if stored.problem else []
    if manifest is not None and not problems:
        pieces = [(name_in(stored.id, entry.name), entry.size, entry.sha256) for entry in manifest.files]
        pieces += [(one.name, one.size, one.sha256) for one in copy.objects or ()]
        problems = _damaged(transfer, pieces, reporter, f"reading {stored.id} at {transfer.destination.url}")
    if manifest is not None and not stored.marks.damaged:
        done = Verification("hash", now(), ok=not problems, reason=problems[0] if problems else None)
        transfer.put(name_in(stored.id, MARKS_FILE), stored.marks.with_verification(done).render())
    return problems


def _damaged(transfer: Transfer, pieces: list[tuple[str, int, str]], reporter: Reporter, title: str) -> list[str]:
    problems = []
    with reporter.step(title, total=max(1, sum(size for _, size, _ in pieces))) as step:
        for name, size, sha256 in pieces:
            step.detail(name)
            try:
                transfer.prove(name, size, sha256, step)
            except Damaged as error:
                problems.append(error.message)
        step.detail(f"{len(pieces)} files, {len(problems)} damaged")
    return problems


def _bytes(pieces: Iterable[_Piece]) -> int:
    return sum(piece.size for piece in pieces)


def _what(sent: list[_Piece]) -> str:
    objects = sum(piece.shared for piece in sent)
    return f"{len(sent) - objects} files and {objects} checkpoint objects, {_bytes(sent) / 1e6:.1f} MB"
