"""Places elsewhere that copies of backups go to: another folder, an SSH host, an S3-compatible store.

Names are relative and use ``/``. A destination is laid out as a backup directory is, so that a copied folder is one.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, Self

from mistudio_ops.errors import OpsError, PreconditionError

#: What files that are being written are called until they have all their bytes. Left ones are removed later.
PARTIAL = ".partial-"
#: Bytes that are handled at a time.
CHUNK = 4 << 20


class DestinationError(PreconditionError):
    """The destination refuses: no permission, no space, no such bucket, an unknown host key. Trying again is no use."""

    code = "destination"


class UnreachableError(OpsError):
    """The destination does not answer, or the connection was cut. Trying again may help."""

    code = "unreachable"


class AbsentError(OpsError):
    """There is no file of that name at the destination."""

    code = "not_there"


class Destination(Protocol):
    """Where copies go. Every method raises ``DestinationError`` or ``UnreachableError`` when it cannot be done."""

    @property
    def url(self) -> str:
        """How it is named to people; without secrets."""

    @property
    def elsewhere(self) -> bool:
        """True when what is sent leaves this machine."""

    def list(self, below: str = "") -> Mapping[str, int]:
        """Return the names of all files below a folder, with their bytes, half-written ones included."""

    def read(self, name: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a file for reading from its start to its end.

        Raises:
            AbsentError: there is none.
        """

    def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
        """Write a file of about ``size`` bytes. It has its name when all is written, and not before.

        What ``chunks`` raises goes through, and then no such file was made.
        """

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def close(self) -> None:
        """End the connection."""

    def __enter__(self) -> Self:
        """Return it."""

    def __exit__(self, *error: object) -> None:
        """Close it."""
