"""pg_dump and pg_dumpall: started, watched, and their exit status believed before what they wrote."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from mistudio_ops.domain.backup import FileEntry
from mistudio_ops.drivers.archive_file import OnBytes, Source, file_suffix, write_archive
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.encryption import Keys
from mistudio_ops.drivers.pg_tools import PgTools, Streams
from mistudio_ops.drivers.snapshot import DUMP, TABLE_LOCK_SECONDS
from mistudio_ops.errors import OpsError

DUMP_FILE = "database.dump"
GLOBALS_FILE = "globals.sql"
#: From the end of its output to its exit; it has nothing left to do then.
_EXIT_SECONDS = 60.0
_STDERR_LINES = 6
_PASSWORD = re.compile(r"\s(?:ENCRYPTED )?PASSWORD\s+(?:'(?:[^']|'')*'|NULL)", re.IGNORECASE)


class DumpError(OpsError):
    """pg_dump failed; the message holds what it said."""

    code = "dump_failed"


def dump_database(
    tools: PgTools, access: DatabaseAccess, snapshot: str, folder: Path, keys: Keys, on_bytes: OnBytes
) -> FileEntry:
    """Write the whole database, as the snapshot sees it, into a new file in ``folder``.

    pg_dump's own compression is off: zstd outside of it is six times as fast, and every pg_dump can do it.

    Raises:
        DumpError: pg_dump could not begin, failed, or was killed.
        OSError: the disk is full.
    """
    arguments = [
        "--format=custom", "--compress=0", f"--snapshot={snapshot}", "--no-password",
        f"--lock-wait-timeout={TABLE_LOCK_SECONDS * 1000}",
    ]  # fmt: skip
    path = folder / f"{DUMP_FILE}{file_suffix(keys.encryption)}"
    with _unnamed_file() as errors, _running(tools, "pg_dump", arguments, access, errors) as process:
        entry = write_archive(cast("Source", process.stdout), path, "database", keys, on_bytes=on_bytes)
        _succeeded("pg_dump", process, errors)
    return entry


def dump_globals(tools: PgTools, access: DatabaseAccess) -> tuple[str, str | None]:
    """Return roles and tablespaces as SQL, without any password, and what is missing from it, if anything.

    A role that may not read all of it gets the roles alone.

    Raises:
        DumpError: not even those.
    """
    try:
        return _globals(tools, access, "--globals-only"), None
    except DumpError as error:
        return _globals(tools, access, "--roles-only"), f"tablespaces and their rights: {error.message}"


def without_passwords(text: str) -> str:
    """Return SQL of pg_dumpall's without a password, whatever it was asked for."""
    return _PASSWORD.sub("", text)


def _globals(tools: PgTools, access: DatabaseAccess, what: str) -> str:
    arguments = [what, "--no-role-passwords", "--no-password", f"--database={access.name}"]
    with _unnamed_file() as errors, _running(tools, "pg_dumpall", arguments, access, errors) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        text = process.stdout.read().decode(errors="replace")
        _succeeded("pg_dumpall", process, errors)
    return without_passwords(text)


@contextmanager
def _running(
    tools: PgTools, program: str, arguments: list[str], access: DatabaseAccess, errors: IO[bytes]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the block ends; whatever ends it, no process of its group stays."""
    try:
        process = tools.start(
            program,
            arguments,
            access.owner,
            access.name,
            application=DUMP,
            streams=Streams(stdout=subprocess.PIPE, stderr=errors),
        )
    except OSError as error:
        raise DumpError(f"{program} in {tools.place} cannot be started: {error.strerror}") from error
    try:
        with process.stdout or errors:
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _unnamed_file() -> IO[bytes]:
    """Return a file in memory: what a program complains of must not need room on a disk that may be full."""
    return os.fdopen(os.memfd_create("stderr"), "w+b")


def _succeeded(program: str, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
    try:
        code = process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DumpError(f"{program} closed its output and did not end within {_EXIT_SECONDS:.0f} s") from error
    if code == 0:
        return
    errors.seek(0)
    said = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    message = f"{program} {how}" + (f": {' / '.join(said[:_STDERR_LINES])}" if said else "")
    raise DumpError(message, hint="nothing was left behind; mistudio-ops health says whether the database is well")
