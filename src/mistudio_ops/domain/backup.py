"""What a backup says about itself: its manifest, and the marks that are made on it later. Pure values.

The manifest is written once, last, and never changed. It carries its own sha256, and there is exactly one way to write
its content down, so that no byte of it can change unnoticed. Marks (pins, verifications) are apart from it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from mistudio_ops.errors import VerificationError

FORMAT = 1
MANIFEST_FILE = "manifest.json"
MARKS_FILE = "marks.json"

#: Why it was made. Those made before a restore or a migration are safety copies: retention counts them apart.
Kind = Literal["manual", "scheduled", "pre-restore", "pre-migrate"]
#: What a file of it holds. ``key`` is the private key, encrypted with the passphrase; ``objects`` lists the shared
#: files that ``checkpoints``, which may be encrypted, refers to: by their hashes only, and readable without any key.
Role = Literal["database", "globals", "configuration", "checkpoints", "objects", "key"]
#: How it was proven, each level including those before: bytes as written; readable to the end; restored and compared.
Level = Literal["hash", "read", "restore"]
LEVELS: tuple[Level, ...] = get_args(Level)
ID_PATTERN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4,8}")


class ManifestError(VerificationError):
    """A manifest is not what was written; the message says why."""

    code = "bad_manifest"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``size`` and ``sha256`` as it lies there, ``plain_*`` of its content before compression."""

    name: str
    role: Role
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str


@dataclass(frozen=True, slots=True)
class TableRows:
    """How many rows a table (or partition, whose ``parent`` is named) had in the dump's snapshot."""

    schema: str
    name: str
    rows: int
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The database that was dumped, in the dump's snapshot. ``size_bytes`` is its size on the server's disk.

    ``roles`` own or may use something in it, ``extensions`` are installed in it (plpgsql apart).
    """

    name: str
    server_version: str
    server_major: int
    size_bytes: int
    owner: str
    encoding: str
    collate: str
    ctype: str
    revision: str | None
    roles: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encryption:
    """Who can read it. ``keys`` are recipients; ``fingerprint`` names this set of keys, ``plain`` without any."""

    scheme: Literal["none", "age"] = "none"
    keys: tuple[str, ...] = ()
    passphrase: bool = False
    fingerprint: str = "plain"


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """Checkpoint files that belong to it: their number, plain bytes, and what this backup had to add."""

    files: int = 0
    bytes: int = 0
    added_files: int = 0
    added_bytes: int = 0
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete backup. ``created`` is the snapshot's time; ``sequence`` orders backups whatever the clock does."""

    id: str
    sequence: int
    kind: Kind
    environment: str
    created: datetime
    database: DatabaseFacts
    tables: tuple[TableRows, ...]
    files: tuple[FileEntry, ...]
    encryption: Encryption
    versions: Mapping[str, str]
    release: Mapping[str, str | None] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    checkpoints: CheckpointFacts | None = None
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of its files (shared checkpoint objects apart)."""
        return sum(entry.size for entry in self.files)

    def file(self, role: Role) -> FileEntry | None:
        """Return the file with that role."""
        return next((entry for entry in self.files if entry.role == role), None)

    def rows_by_table(self) -> dict[str, int]:
        """Return rows per table as a person counts them: partitions are added to their parent."""
        counts: dict[str, int] = {}
        for table in self.tables:
            name = table.parent or table.name
            counts[name] = counts.get(name, 0) + table.rows
        return counts

    def render(self) -> bytes:
        """Return the one form in which it is written."""
        document = asdict(self) | {"created": self.created.astimezone(UTC).isoformat(timespec="microseconds")}
        return _rendered(document | {"sha256": _digest(document)})

    @classmethod
    def parse(cls, raw: bytes) -> "Manifest":
        """Return the manifest that ``raw`` is.

        Raises:
            ManifestError: it was cut, edited, or written by a later release.
        """
        try:
            document = json.loads(raw)
            recorded = document.pop("sha256")
            manifest = _manifest(document) if document["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"it cannot be read: {type(error).__name__}: {error}") from error
        if manifest is None:
            raise ManifestError(f"it has format {document['format']!r}; this release reads {FORMAT}")
        if recorded != _digest(document) or manifest.render() != raw:
            raise ManifestError("it was changed after it was written: its sha256 is another")
        return manifest


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of the latest verification of one level. ``reason`` says what was wrong."""

    level: Level
    at: datetime
    ok: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """What became known of a backup after it was made. Unreadable marks are ``damaged``, which counts as pinned."""

    pinned: bool = False
    pin_reason: str | None = None
    verifications: tuple[Verification, ...] = ()
    damaged: bool = False

    def latest(self, level: Level) -> Verification | None:
        """Return the verification of that level."""
        return next((one for one in self.verifications if one.level == level), None)

    def verified(self, level: Level) -> datetime | None:
        """Return when that level, or a higher one, last succeeded."""
        levels = LEVELS[LEVELS.index(level) :]
        return max((one.at for one in self.verifications if one.ok and one.level in levels), default=None)

    @property
    def failure(self) -> Verification | None:
        """Return the newest verification if it failed: the backup is bad until one of that level succeeds."""
        failed = [one for one in self.verifications if not one.ok]
        return max(failed, key=lambda one: one.at, default=None)

    def with_verification(self, done: Verification) -> "Marks":
        """Return marks with ``done`` in place of what was known of its level.

        A success also clears failures of the levels that it includes.
        """
        included = LEVELS[: LEVELS.index(done.level) + 1] if done.ok else (done.level,)
        kept = [one for one in self.verifications if one.level != done.level and (one.ok or one.level not in included)]
        return Marks(self.pinned, self.pin_reason, (*kept, done), self.damaged)

    def render(self) -> bytes:
        """Return the JSON form."""
        verifications = [asdict(one) | {"at": one.at.isoformat()} for one in self.verifications]
        return _rendered({"pinned": self.pinned, "pin_reason": self.pin_reason, "verifications": verifications})

    @classmethod
    def parse(cls, raw: bytes) -> "Marks":
        """Return the marks that ``raw`` is. Garbled ones are ``damaged``: nothing may be removed because of them."""
        try:
            document = json.loads(raw)
            verifications = tuple(
                Verification(_one_of(one["level"], LEVELS), _time(one["at"]), bool(one["ok"]), one.get("reason"))
                for one in document["verifications"]
            )
            return cls(bool(document["pinned"]), document.get("pin_reason"), verifications)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(damaged=True)


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """One folder of a backup directory: ``problem`` says why it is none that can be used.

    ``unreadable``: the system refused to read it (an I/O error, no permission). That may pass; it proves nothing.
    """

    id: str
    manifest: Manifest | None
    marks: Marks = Marks()
    problem: str | None = None
    unreadable: bool = False

    @property
    def good(self) -> bool:
        """True when it has a sound manifest and no verification of it failed since one succeeded."""
        return self.manifest is not None and self.problem is None and self.marks.failure is None

    @property
    def sequence(self) -> int:
        """Return its place in the order in which backups were made; 0 when that is not known."""
        return self.manifest.sequence if self.manifest else 0


def new_id(created: datetime, token: str) -> str:
    """Return the id of a backup made at ``created``; ``token`` (hexadecimal) keeps it apart from others."""
    return f"{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{token}"


def _manifest(document: Mapping[str, Any]) -> Manifest:
    database = dict(document["database"])
    encryption = dict(document["encryption"])
    checkpoints = document["checkpoints"]
    return Manifest(
        id=document["id"],
        sequence=int(document["sequence"]),
        kind=_one_of(document["kind"], get_args(Kind)),
        environment=document["environment"],
        created=_time(document["created"]),
        database=DatabaseFacts(
            **database | {"roles": tuple(database["roles"]), "extensions": tuple(database["extensions"])}
        ),
        tables=tuple(TableRows(**table) for table in document["tables"]),
        files=tuple(FileEntry(**entry) for entry in document["files"]),
        encryption=Encryption(**encryption | {"keys": tuple(encryption["keys"])}),
        versions=dict(document["versions"]),
        release=dict(document["release"]),
        seconds=dict(document["seconds"]),
        checkpoints=CheckpointFacts(**checkpoints | {"vanished": tuple(checkpoints["vanished"])})
        if checkpoints
        else None,
        format=document["format"],
    )


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value


def _time(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return value


def _rendered(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
