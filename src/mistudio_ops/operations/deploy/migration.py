"""Migrating the database of an environment: first a backup that is proven, then the release's own migrations."""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

from mistudio_ops.drivers.catalog import tables
from mistudio_ops.errors import ExitCode, LockedError, OpsError, VerificationError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.deploy.context import Context
from mistudio_ops.operations.deploy.server_process import run_server

_TOLD = "mistudio-server: waiting for "
#: Alembic's own table says where the schema is: no data that could be lost.
_NOT_DATA = "alembic_version"


@dataclass(frozen=True, slots=True)
class Migrated:
    """The revision that the database is at now, and the backup that was made before; None where none was needed."""

    revision: str
    backup: str | None

    @property
    def told(self) -> str:
        """The same for a person."""
        return f"at revision {self.revision}" + (f", after backup {self.backup}" if self.backup else "")


def migrate(context: Context) -> Migrated:
    """Back the database up where it holds data that the migrations may change, prove that backup, and migrate.

    Raises:
        LockedError: other maintenance of the database went on for longer than we wait. Nothing was migrated.
        OpsError: no proven backup could be made, and nothing was migrated; or the migration failed.
    """
    backup = _backup(context) if _needs_backup(context) else None
    return Migrated(_run_migrations(context), backup)


def _needs_backup(context: Context) -> bool:
    if context.facts.current is None or context.migration.skip_backup:
        return False
    code, output, errors = _server(context, ("migrate", "--check", "--json"))
    if code not in {ExitCode.OK, ExitCode.FAILED} or not output.strip():
        raise _failed(context, "looking at the database's revision", code, output, errors)
    found = json.loads(output)
    return found["current"] is not None and not found["at_head"] and _has_rows(context)


def _has_rows(context: Context) -> bool:
    from psycopg import sql

    with _workplace(context).access().session() as connection:
        names = [sql.Identifier(schema, name) for schema, name, _ in tables(connection) if name != _NOT_DATA]
        queries = (sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(name) for name in names)
        return any(row[0] for query in queries if (row := connection.execute(query).fetchone()))


def _backup(context: Context) -> str:
    """Make a backup and restore it into a scratch database; return its id."""
    from mistudio_ops.operations.backup.create import create_locked
    from mistudio_ops.operations.backup.verify import verify_locked

    workplace, wait = _workplace(context), context.migration.lock_wait
    hint = (
        f"nothing was migrated. Correct the cause and run mistudio-ops deploy {context.environment.name} again; "
        "--skip-backup migrates without one"
    )
    try:
        workplace.directory.prepare()
        with workplace.directory.lock(wait):
            stored = create_locked(workplace, kind="pre-migrate", lock_wait=wait)
            outcome = verify_locked(workplace, stored, "restore")
    except LockedError:
        raise
    except OpsError as error:
        raise OpsError(f"no proven backup could be made before the migration: {error.message}", hint=hint) from error
    if not outcome.ok:
        raise VerificationError(
            f"backup {stored.id}, made before the migration, could not be proven by a restore: {outcome.reason}",
            hint=hint,
        )
    return stored.id


def _workplace(context: Context) -> Workplace:
    return Workplace(context.environment, context.reporter, context.migration.environ)


def _run_migrations(context: Context) -> str:
    code, output, errors = _server(
        context, ("migrate", "--json", "--lock-wait", str(context.migration.lock_wait)), on_wait=_tell(context)
    )
    if code == ExitCode.LOCKED:
        raise LockedError(
            f"the database was not migrated: {errors.strip().removeprefix('mistudio-server: ')}",
            hint=f"run mistudio-ops deploy {context.environment.name} again when it has ended, or wait longer: "
            "--lock-wait SECONDS",
        )
    if code != ExitCode.OK:
        raise _failed(context, "the migration", code, output, errors)
    return str(json.loads(output)["current"])


def _tell(context: Context) -> Callable[[str], None]:
    return lambda who: context.reporter.note(f"the migration waits for {who}")


def _server(
    context: Context, arguments: tuple[str, ...], *, on_wait: Callable[[str], None] = lambda _: None
) -> tuple[int, str, str]:
    """Run a command of the server to its end and return exit status, output and errors but for whom it waited.

    It is never cut off: a migration commits or rolls back by itself.
    """
    unit = context.facts.wanted.of("backend")[0]
    errors: list[str] = []
    with run_server(context.host, unit, arguments) as process:
        reading = threading.Thread(target=_listen, args=(process.stderr, errors, on_wait))
        reading.start()
        output = process.stdout.read() if process.stdout else ""
        code = process.wait()
        reading.join()
    return code, output, "".join(errors)


def _listen(stream: IO[str] | Iterable[str] | None, errors: list[str], on_wait: Callable[[str], None]) -> None:
    for line in stream or ():
        if line.startswith(_TOLD):
            on_wait(line.removeprefix(_TOLD).strip())
        else:
            errors.append(line)


def _failed(context: Context, what: str, code: int, output: str, errors: str) -> OpsError:
    lines = (errors + output).strip().splitlines()[-25:]
    return OpsError(
        f"{what} failed with exit status {code}:\n" + "\n".join(f"    {line}" for line in lines),
        hint="nothing was switched; the schema is as the last complete migration left it. "
        f"Correct the cause and run mistudio-ops deploy {context.environment.name} again",
    )
