"""Copies on an SSH host, by SFTP, with the operator's own ~/.ssh: config, known_hosts, keys, agent.

The host's key is always checked: a copy of a database goes to no stranger.
"""

import asyncio
import getpass
import posixpath
import stat
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from urllib.parse import SplitResult, unquote

from mistudio_ops.drivers.destinations import CHUNK, PARTIAL, AbsentError, DestinationError, UnreachableError
from mistudio_ops.drivers.destinations.loop_thread import LoopThread

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")
#: Seconds to connect and to log in; a host that fell silent is given up after three unanswered signs of life.
CONNECT_TIMEOUT = 20.0
LOGIN_TIMEOUT = 30.0
KEEPALIVE_SECONDS = 15.0


class Sftp:
    """A folder of an SSH host. It connects when first used, and again after the connection was lost."""

    elsewhere = True

    def __init__(self, parts: SplitResult) -> None:
        self._host = parts.hostname or ""
        self._port = parts.port
        self._user = unquote(parts.username) if parts.username else None
        path = unquote(parts.path).rstrip("/")
        self.root = path.removeprefix("/~/") if path.startswith("/~/") else path or "/"
        self.url = parts.geturl()
        self._runner = LoopThread()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._folders: set[str] = set()

    def list(self, below: str = "") -> dict[str, int]:
        """Return the files below a folder."""
        return self._run(self._list(self._path(below)))

    @contextmanager
    def read(self, name: str) -> Iterator[Iterator[bytes]]:
        """Open a file."""
        file = self._run(self._open(self._path(name), "rb"), name)
        try:
            yield self._chunks(file)
        finally:
            with suppress(UnreachableError, DestinationError):
                self._run(file.close())

    def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
        """Write a file, synced where the host can."""
        del size
        path = self._path(name)
        self._run(self._make_folders(posixpath.dirname(path)))
        partial = posixpath.join(posixpath.dirname(path), f"{PARTIAL}{posixpath.basename(path)}")
        try:
            self._run(self._write(partial, path, chunks))
        except BaseException:
            with suppress(UnreachableError, DestinationError):
                if self._client is not None:  # after a cut the next push removes it
                    self._run(self._remove(partial))
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and its folder where that is empty now."""
        self._run(self._remove(self._path(name), folder=True))

    def close(self) -> None:
        """End the connection and the event loop."""
        try:
            if self._connection is not None:
                self._runner.run(self._disconnect())
        finally:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _chunks(self, file: "asyncssh.SFTPClientFile") -> Iterator[bytes]:
        while chunk := self._run(file.read(CHUNK)):
            yield cast("bytes", chunk)

    def _path(self, name: str) -> str:
        return posixpath.join(self.root, name) if name else self.root

    def _run(self, work: Coroutine[Any, Any, T], name: str = "") -> T:
        """Run ``work``, and say what went wrong in words. A lost connection is forgotten."""
        import asyncssh

        try:
            return self._runner.run(work)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
            raise AbsentError(f"there is no {name or 'such file'} at {self.url}") from error
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise self._lost(error) from error
        except asyncssh.SFTPError as error:
            raise self._refused(error) from error
        except (asyncssh.Error, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> UnreachableError:
        with suppress(Exception):
            self._runner.run(self._disconnect())
        return UnreachableError(
            f"the connection to {self._host} was lost: {_said(error)}", hint="run it again: what is there already stays"
        )

    def _refused(self, error: "asyncssh.SFTPError") -> DestinationError:
        """OpenSSH has one word, "Failure", for a full disk and much else: ask for the free space."""
        import asyncssh

        free: int | None = None
        with suppress(Exception):
            free = self._runner.run(self._free())
        full = isinstance(error, asyncssh.SFTPNoSpaceOnFilesystem | asyncssh.SFTPQuotaExceeded)
        if full or (free is not None and free < CHUNK and isinstance(error, asyncssh.SFTPFailure)):
            return DestinationError(
                f"the disk of {self._host} is full", hint=f"mistudio-ops backup prune --at {self.url}"
            )
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            return DestinationError(
                f"{self._host} refuses access to {self.root}: {error}",
                hint=f"{self._ssh()} ls -ld {self.root}; the account must be able to write there",
            )
        return DestinationError(f"{self._host} refuses: {error}", hint=f"{self._ssh()} ls -ld {self.root}")

    async def _sftp(self) -> "asyncssh.SFTPClient":
        if self._client is None:
            self._connection = await self._connect()
            self._client = await self._connection.start_sftp_client()
        return self._client

    async def _connect(self) -> "asyncssh.SSHClientConnection":
        import asyncssh

        options = {"username": self._user} if self._user else {}
        try:
            prepared = asyncssh.SSHClientConnectionOptions(
                config=(), host=self._host, port=self._port or (), connect_timeout=CONNECT_TIMEOUT,
                login_timeout=LOGIN_TIMEOUT, keepalive_interval=KEEPALIVE_SECONDS, **options,
            )  # fmt: skip
        except (ValueError, OSError, asyncssh.Error) as error:
            raise DestinationError(f"the SSH configuration cannot be used: {error}", hint=self._ssh()) from error
        if prepared.known_hosts is None:
            raise DestinationError(
                "the SSH configuration switches the check of host keys off (UserKnownHostsFile none)",
                hint="remove that from ~/.ssh/config for this host",
            )
        try:
            return await asyncssh.connect(self._host, self._port or (), options=prepared, config=None)
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._unknown_key(prepared, error) from error
        except asyncssh.PermissionDenied as error:
            raise self._no_login(error) from error
        except (OSError, asyncssh.Error) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"{self._host} cannot be reached: {_said(error)}", hint=f"{self._ssh()} true")

    def _no_login(self, error: Exception) -> DestinationError:
        who = self._user or getpass.getuser()
        return DestinationError(
            f"{self._host} does not let {who} in: {error}",
            hint=f"{self._ssh()} true must work without a question; ssh-copy-id sends it your key",
        )

    def _unknown_key(self, options: "asyncssh.SSHClientConnectionOptions", error: Exception) -> DestinationError:
        del error
        port = self._port or 22
        if _is_known(options, self._host, port):
            return DestinationError(
                f"the host key of {self._host} is another than the one in ~/.ssh/known_hosts: it was set up anew, "
                "or somebody else answers in its place",
                hint=f"find out which; only then: ssh-keygen -R '{_bracketed(self._host, port)}', and {self._ssh()}",
            )
        return DestinationError(
            f"the host key of {self._host} is not known here",
            hint=f"{self._ssh()} (and compare the fingerprint), "
            f"or ssh-keyscan -p {port} {self._host} >> ~/.ssh/known_hosts on a network that you trust",
        )

    def _ssh(self) -> str:
        port = f" -p {self._port}" if self._port else ""
        return f"ssh{port} {f'{self._user}@' if self._user else ''}{self._host}"

    async def _disconnect(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        self._folders.clear()
        if connection is not None:
            connection.close()
            with suppress(Exception):
                await asyncio.wait_for(connection.wait_closed(), 5)

    async def _list(self, folder: str) -> dict[str, int]:
        sftp = await self._sftp()
        return {posixpath.relpath(path, self.root): size async for path, size in _walk(sftp, folder)}

    async def _open(self, path: str, mode: str) -> "asyncssh.SFTPClientFile":
        return await (await self._sftp()).open(path, mode)

    async def _make_folders(self, folder: str) -> None:
        if folder in self._folders:
            return
        sftp = await self._sftp()
        if not await sftp.isdir(folder):
            await sftp.makedirs(folder, exist_ok=True)
        self._folders.add(folder)

    async def _write(self, partial: str, path: str, chunks: Iterator[bytes]) -> None:
        import asyncssh

        sftp = await self._sftp()
        async with sftp.open(partial, "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
            for chunk in chunks:
                await file.write(chunk)
            with suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()
        try:
            await sftp.posix_rename(partial, path)
        except asyncssh.SFTPOpUnsupported:  # hosts other than OpenSSH: they rename onto nothing only
            await self._remove(path)
            await sftp.rename(partial, path)

    async def _remove(self, path: str, *, folder: bool = False) -> None:
        import asyncssh

        sftp = await self._sftp()
        with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await sftp.remove(path)
        parent = posixpath.dirname(path)
        if folder and parent != self.root:
            self._folders.discard(parent)
            with suppress(asyncssh.SFTPError):
                await sftp.rmdir(parent)

    async def _free(self) -> int:
        facts = await (await self._sftp()).statvfs(self.root)
        return int(facts.bavail) * int(facts.frsize)


async def _walk(sftp: "asyncssh.SFTPClient", folder: str) -> AsyncIterator[tuple[str, int]]:
    """Give the path and size of every file below; nothing where the folder is not there."""
    import asyncssh

    try:
        entries = await sftp.readdir(folder)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return
    for entry in entries:
        name = str(entry.filename)
        if name in {".", ".."}:
            continue
        path = posixpath.join(folder, name)
        if stat.S_ISDIR(entry.attrs.permissions or 0):
            async for found in _walk(sftp, path):
                yield found
        else:
            yield path, int(entry.attrs.size or 0)


def _is_known(options: "asyncssh.SSHClientConnectionOptions", host: str, port: int) -> bool:
    """True when some key of the host is in known_hosts."""
    from pathlib import Path

    import asyncssh

    named: Any = options.known_hosts or [str(Path("~/.ssh/known_hosts").expanduser())]
    files = [str(one) for one in named if Path(one).is_file()]
    if not files:
        return False
    try:
        found = asyncssh.match_known_hosts(files, host, "", port)
    except (OSError, ValueError):
        return False
    return any(found[:1]) or any(found[1:2])


def _said(error: Exception) -> str:
    """Timeouts say nothing of themselves."""
    return str(error) or ("it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _bracketed(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"  # noqa: PLR2004 - SSH's port
