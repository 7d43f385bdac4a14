"""The embedded PostgreSQL: its cluster, its unit, its role and database."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues
from mistudio_ops.domain.sizing import connections
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.embedded import Program
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.engines.state_files import postgres_run
from mistudio_ops.errors import OpsError, PreconditionError

if TYPE_CHECKING:
    import psycopg

ADMIN = "postgres"
OWNER = "mistudio"
INITDB_SECONDS = 120.0

#: Memory budget of an 8 GB board: 32 MB of shared buffers hold the hot pages of a small lab; JIT compiles queries
#: that take milliseconds for hundreds of them, and loads LLVM (40 MB) into each connection that does.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "replica",
    "max_wal_senders": "2",
    "jit": "off",
    "autovacuum_max_workers": "2",
    "max_parallel_workers_per_gather": "0",
    "password_encryption": "scram-sha-256",
    "idle_in_transaction_session_timeout": "10min",
    "log_min_duration_statement": "1s",
    "log_lock_waits": "on",
    "log_line_prefix": "%m [%p] %a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def initialised(data: Path) -> bool:
    """Return True when the cluster was created. It gets its name when it is complete."""
    return data.is_dir()


def create_cluster(environment: Environment, program: Program, account: Account, secrets: SecretValues) -> None:
    """Run initdb into a folder that becomes PGDATA when it is complete.

    A kill in the middle leaves a partial folder, which the next run throws away. Each run has a name of its own for
    it: the initdb of a deploy that was killed may still be writing. Its writes are not synced here (that is most of
    initdb's time): ``sync_cluster`` does it while the other units start.
    """
    data = environment.paths.postgres
    prefix = f"{data.name}.partial-"
    for left in environment.paths.runtime.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=environment.paths.runtime))
    account.own(partial)
    password_file = postgres_run(environment.paths) / "initdb-password"
    write_atomically(password_file, secrets.postgres_admin_password + "\n", mode=0o600, own=account.own)
    try:
        _run(
            [
                str(program.path / "initdb"), "-D", str(partial), "-U", ADMIN, "-A", "scram-sha-256", "-E", "UTF8",
                "--locale=C.UTF-8", "--no-sync", "--no-instructions", f"--pwfile={password_file}",
            ],
            account, partial,
        )  # fmt: skip
    finally:
        password_file.unlink(missing_ok=True)
    partial.rename(data)


def sync_cluster(environment: Environment, program: Program, account: Account) -> None:
    """Write a new cluster's files through to the disk. Safe while the server runs."""
    _run(
        [str(program.path / "initdb"), "--sync-only", "-D", str(environment.paths.postgres)],
        account,
        environment.paths.postgres,
    )


def check_version(data: Path, program: Program) -> None:
    """Refuse to start a cluster with a program of another major version.

    Raises:
        PreconditionError: it names both versions and what to do.
    """
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    if version.isdigit() and int(version) != program.major:
        raise PreconditionError(
            f"the database in {data} was made by PostgreSQL {version}; the PostgreSQL found here is {program.version} "
            f"({program.path})",
            hint=f"install PostgreSQL {version} again (or set process.prefer), or move the data with pg_upgrade",
        )


def unit(environment: Environment, program: Program, account: Account) -> Unit:
    """Return the server's unit. Its settings are arguments, so that PGDATA holds data only."""
    settings = _SETTINGS | {
        "port": str(environment.postgres_port),
        "unix_socket_directories": str(postgres_run(environment.paths)),
        "max_connections": str(connections(environment).maximum),
    }
    data = str(environment.paths.postgres)
    return Unit(
        name="postgres",
        kind="postgres",
        argv=(str(program.path / "postgres"), "-D", data, *(f"--{key}={value}" for key, value in settings.items())),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MISTUDIO_UNIT_DIR": str(environment.paths.root)},
        directory=data,
        stop_signal="INT",  # fast shutdown: connections are ended, data is flushed
        stop_seconds=40,
        kill_group=False,  # its children end by themselves, and must not be killed in the middle of a write
        uid=account.uid if account.drop else None,
        gid=account.gid if account.drop else None,
        ports=(environment.postgres_port,),
    )


def answers(environment: Environment, secrets: SecretValues) -> bool:
    """Return True when the server takes connections."""
    import psycopg

    try:
        _connect(environment, secrets).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise OpsError(
                "PostgreSQL refuses the password in secrets.json: it belongs to another database",
                hint=f"put back the secrets.json that was in {environment.paths.root} when the database was created",
            ) from error
        return False
    return True


def create_database(environment: Environment, secrets: SecretValues) -> bool:
    """Create the role and the database that the server uses, where they are missing; return True when it did."""
    from psycopg import sql

    created = False
    with _connect(environment, secrets) as admin:
        # The statement below holds a password: on a slow machine it must not be logged as a slow statement.
        admin.execute("SET log_min_duration_statement = -1")
        admin.execute("SET log_min_error_statement = panic")
        if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone() is None:
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(OWNER), sql.Literal(secrets.database_password)
                )
            )
            created = True
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (OWNER,)).fetchone() is None:
            admin.execute(
                sql.SQL("CREATE DATABASE {0} OWNER {0} STRATEGY FILE_COPY").format(sql.Identifier(OWNER))
                if admin.info.server_version >= 150000  # noqa: PLR2004 - option of PostgreSQL 15 and later
                else sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(OWNER))
            )
            created = True
    return created


def wait_until_it_answers(
    environment: Environment,
    secrets: SecretValues,
    *,
    give_up: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the server takes connections; ``give_up`` raises when waiting makes no sense any more."""
    while not answers(environment, secrets):
        give_up()
        sleep(0.03)


def _connect(environment: Environment, secrets: SecretValues) -> "psycopg.Connection[tuple[object, ...]]":
    import psycopg

    return psycopg.connect(
        host="127.0.0.1",
        port=environment.postgres_port,
        user=ADMIN,
        password=secrets.postgres_admin_password,
        dbname="postgres",
        autocommit=True,
        connect_timeout=3,
        application_name="mistudio-ops",
    )


def _run(argv: list[str], account: Account, directory: Path) -> None:
    done = subprocess.run(
        argv, cwd=directory, capture_output=True, text=True, timeout=INITDB_SECONDS, check=False,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, **account.popen(),
    )  # fmt: skip
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-20:]
        raise OpsError(
            f"{Path(argv[0]).name} failed with exit status {done.returncode}:\n" + "\n".join(f"    {x}" for x in lines),
            hint="is the disk full, or the state directory on a file system without permissions?",
        )
