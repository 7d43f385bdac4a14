"""Who can read backups: age recipients, a passphrase, or everybody who reads the disk.

A passphrase does not encrypt the data itself: it encrypts a key, made once per backup directory, to which the data is
encrypted. So unchanged checkpoints stay unchanged, and the slow derivation (scrypt, 256 MB for a second) runs once.
Every backup carries its copy of that file: ``age -d key.age > key; age -d -i key database.dump.zst.age`` reads it
without this program.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudio_ops.domain.backup import Encryption
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.errors import OpsError, UsageError

KEY_FILE = "key.age"
PASSPHRASE_VARIABLE = "MISTUDIO_BACKUP_PASSPHRASE"  # noqa: S105 - the name of the variable
_KEYS_FOLDER = "keys"


class WrongKeyError(OpsError):
    """A backup cannot be read with the keys at hand. It may be perfectly good."""

    code = "wrong_key"


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What is needed to write (recipients) and to read (identities, a passphrase).

    ``key_file`` is the content of ``key.age`` where a passphrase is used.
    """

    encryption: Encryption
    recipients: tuple[Any, ...] = ()
    identities: tuple[Any, ...] = ()
    passphrase: str | None = None
    key_file: bytes | None = None

    def __repr__(self) -> str:
        return f"Keys({self.encryption.fingerprint})"

    @property
    def can_read(self) -> bool:
        """True when what is written with these keys can be read with them."""
        return self.encryption.scheme == "none" or bool(self.identities)


def load_keys(settings: BackupSettings, environ: Mapping[str, str], folder: Path | None = None) -> Keys:
    """Return the keys that ``settings`` name. With ``folder``, the backup directory, a passphrase's key is made there.

    Raises:
        UsageError: a file is missing, open to others, or holds no key; recipients and passphrase are both given.
    """
    passphrase = _passphrase(settings, environ)
    identities = _identities(settings.identity_file)
    if passphrase is None:
        return _recipient_keys(settings.recipients, identities)
    if settings.recipients:
        raise UsageError(
            "recipients and a passphrase are both configured for backups",
            hint="use one: remove backup.recipients from mistudio.toml, or the passphrase",
        )
    if folder is None:
        return Keys(
            Encryption("age", (), passphrase=True, fingerprint=""), identities=identities, passphrase=passphrase
        )
    return _passphrase_keys(passphrase, identities, folder)


def opening(keys: Keys, encryption: Encryption, key_file: bytes | None) -> tuple[Any, ...]:
    """Return the identities to try on a backup; ``key_file`` is its ``key.age``.

    Raises:
        WrongKeyError: there is nothing to try, or the passphrase is wrong.
    """
    if encryption.scheme == "none":
        return ()
    if encryption.passphrase and encryption.fingerprint != keys.encryption.fingerprint:
        if keys.passphrase is None or key_file is None:
            raise WrongKeyError(
                "the backup is encrypted with a passphrase, and none is at hand",
                hint=f"set {PASSPHRASE_VARIABLE}, or backup.passphrase_file",
            )
        return (*keys.identities, _unlocked(key_file, keys.passphrase))
    if not keys.identities:
        raise WrongKeyError(
            f"the backup is encrypted for {', '.join(encryption.keys) or 'a key'}, and no private key is at hand",
            hint="set backup.identity_file (or --set backup.identity_file=FILE) to the file with the private key",
        )
    return keys.identities


def install_key(folder: Path, fingerprint: str, content: bytes) -> None:
    """Give the backup directory ``folder`` a key that is encrypted with a passphrase, if it has it not yet."""
    target = folder / _KEYS_FOLDER / f"{fingerprint}.age"
    if target.is_file():
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_name(f".{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def fingerprint(recipients: Sequence[str]) -> str:
    """Return a short name for a set of recipients."""
    return hashlib.sha256("\n".join(sorted(recipients)).encode()).hexdigest()[:12]


def _recipient_keys(recipients: Sequence[str], identities: tuple[Any, ...]) -> Keys:
    if not recipients:
        return Keys(Encryption(), identities=identities)
    parsed = tuple(_recipient(text) for text in recipients)
    return Keys(Encryption("age", tuple(recipients), fingerprint=fingerprint(recipients)), parsed, identities)


def _recipient(text: str) -> Any:
    import pyrage

    try:
        return (
            pyrage.x25519.Recipient.from_str(text) if text.startswith("age1") else pyrage.ssh.Recipient.from_str(text)
        )
    except pyrage.RecipientError as error:
        raise UsageError(
            f"backup.recipients: {text} is no age recipient: {error}", hint="age-keygen makes one"
        ) from error


def _identities(path: Path | None) -> tuple[Any, ...]:
    import pyrage

    if path is None:
        return ()
    text = _private_text(path, "backup.identity_file")
    try:
        if "-----BEGIN" in text:
            return (pyrage.ssh.Identity.from_buffer(text.encode()),)
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith("AGE-SECRET-KEY-")]
        if not lines:
            raise UsageError(f"backup.identity_file: {path} holds no AGE-SECRET-KEY-", hint="age-keygen makes one")
        return tuple(pyrage.x25519.Identity.from_str(line) for line in lines)
    except pyrage.IdentityError as error:
        raise UsageError(f"backup.identity_file: {path} holds no private key: {error}") from error


def _passphrase(settings: BackupSettings, environ: Mapping[str, str]) -> str | None:
    given = environ.get(PASSPHRASE_VARIABLE)
    if given:
        return given
    if settings.passphrase_file is None:
        return None
    text = _private_text(settings.passphrase_file, "backup.passphrase_file").strip("\r\n")
    if not text:
        raise UsageError(f"backup.passphrase_file: {settings.passphrase_file} is empty")
    return text


def _private_text(path: Path, key: str) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{key}: {path} cannot be read: {error}", hint=f"ls -l {path}") from error
    if mode & 0o077:
        raise UsageError(f"{key}: others can read {path}", hint=f"chmod 600 {path}")
    return text


def _passphrase_keys(passphrase: str, identities: tuple[Any, ...], folder: Path) -> Keys:
    """Open the directory's key that belongs to the passphrase; make one where none does."""
    for path in sorted((folder / _KEYS_FOLDER).glob("*.age")):
        content = path.read_bytes()
        try:
            identity = _unlocked(content, passphrase)
        except WrongKeyError:
            continue
        return _with_key(identity, content, identities, passphrase)
    return _make_key(passphrase, identities, folder)


def _make_key(passphrase: str, identities: tuple[Any, ...], folder: Path) -> Keys:
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    content = pyrage.passphrase.encrypt(str(identity).encode() + b"\n", passphrase)
    keys = _with_key(identity, content, identities, passphrase)
    install_key(folder, keys.encryption.fingerprint, content)
    return keys


def _with_key(identity: Any, content: bytes, identities: tuple[Any, ...], passphrase: str) -> Keys:
    public = identity.to_public()
    name = fingerprint([str(public)])
    encryption = Encryption("age", (str(public),), passphrase=True, fingerprint=name)
    return Keys(encryption, (public,), (*identities, identity), passphrase, content)


def _unlocked(content: bytes, passphrase: str) -> Any:
    import pyrage

    try:
        return pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(content, passphrase).decode().strip())
    except (pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError) as error:
        raise WrongKeyError(
            f"the passphrase does not open {KEY_FILE}: {error}",
            hint=f"is {PASSPHRASE_VARIABLE} the passphrase that the backup was made with?",
        ) from error
