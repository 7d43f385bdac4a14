"""How to reach an environment's database: as the role that owns it, and as one that may create databases."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues, database_url
from mistudio_ops.errors import PreconditionError

if TYPE_CHECKING:
    import psycopg

#: Advisory lock shared by migrations, the archiver and backups: one of them at a time. It is the server's
#: ``db.migrations.MAINTENANCE_LOCK``, which a test compares.
MAINTENANCE_LOCK = 0x6D69_5374_7564_696F
CONNECT_SECONDS = 10
#: Where databases are created, renamed and dropped from.
MAINTENANCE_DATABASE = "postgres"


@dataclass(frozen=True, slots=True)
class Login:
    """One role's way in. ``password`` is a secret."""

    host: str
    port: int
    user: str
    password: str | None
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Login({self.user}@{self.host}:{self.port})"

    def variables(self, dbname: str, application: str) -> dict[str, str]:
        """Return libpq's environment variables: a password on a command line could be read by everybody."""
        variables = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": dbname,
            "PGAPPNAME": application,
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            **{f"PG{name.upper()}": value for name, value in self.options.items()},
        }
        return variables | ({"PGPASSWORD": self.password} if self.password is not None else {})

    def connect(self, dbname: str, application: str = "mistudio-ops") -> "psycopg.Connection[Any]":
        """Open a connection in autocommit mode, with no time limit on statements or idle transactions.

        Raises:
            psycopg.OperationalError: no answer, or refused.
        """
        import psycopg
        from psycopg.conninfo import make_conninfo

        conninfo = make_conninfo(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=dbname,
            connect_timeout=CONNECT_SECONDS, application_name=application,
            options="-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c TimeZone=UTC",
            **self.options,
        )  # fmt: skip
        return psycopg.connect(conninfo, autocommit=True)


@dataclass(frozen=True, slots=True)
class DatabaseAccess:
    """The database ``name``: ``owner`` is the server's own role, ``admin`` may create and rename databases.

    ``container`` is the Docker container that PostgreSQL runs in, where that is known.
    """

    name: str
    owner: Login
    admin: Login
    container: str | None = None

    @contextmanager
    def session(
        self, dbname: str | None = None, application: str = "mistudio-ops"
    ) -> Iterator["psycopg.Connection[Any]"]:
        """Open a session as the owner, closed with the block.

        Raises:
            PreconditionError: no answer, or refused.
        """
        with _opened(self.owner, dbname or self.name, application) as connection:
            yield connection

    @contextmanager
    def admin_session(
        self, dbname: str = MAINTENANCE_DATABASE, application: str = "mistudio-ops"
    ) -> Iterator["psycopg.Connection[Any]"]:
        """Open a session as the role that may create databases, closed with the block.

        Raises:
            PreconditionError: no answer, or refused.
        """
        with _opened(self.admin, dbname, application) as connection:
            yield connection


def database_access(environment: Environment, secrets: SecretValues | None) -> DatabaseAccess:
    """Return how to reach the environment's database. ``secrets`` may be None where a URL is configured.

    Raises:
        PreconditionError: the environment was never deployed, so there is no database.
    """
    if environment.database_url is None:
        if secrets is None:
            raise PreconditionError(
                f"environment {environment.name} is not deployed: {environment.state_dir} holds no secrets of it",
                hint=f"mistudio-ops deploy {environment.name}",
            )
        name, owner = _parsed(database_url(secrets, environment.postgres_port))
        admin = Login("127.0.0.1", environment.postgres_port, "postgres", secrets.postgres_admin_password, {})
        return DatabaseAccess(name, owner, admin)
    name, owner = _parsed(environment.database_url)
    admin = _parsed(environment.database_admin_url)[1] if environment.database_admin_url else owner
    return DatabaseAccess(name, owner, admin, environment.database_container)


def _parsed(url: str) -> tuple[str, Login]:
    from psycopg.conninfo import conninfo_to_dict

    parts = urlsplit(url)
    values = conninfo_to_dict(url.replace("postgresql+psycopg://", "postgresql://", 1))
    known = {"host", "port", "user", "password", "dbname", "connect_timeout", "application_name", "options"}
    login = Login(
        host=str(values.get("host") or "localhost"),
        port=int(values.get("port") or 5432),
        user=str(values.get("user") or unquote(parts.username or "postgres")),
        password=str(values["password"]) if values.get("password") is not None else None,
        options={key: str(value) for key, value in values.items() if key not in known},
    )
    return str(values.get("dbname") or login.user), login


@contextmanager
def _opened(login: Login, dbname: str, application: str) -> Iterator["psycopg.Connection[Any]"]:
    import psycopg

    try:
        connection = login.connect(dbname, application)
    except psycopg.OperationalError as error:
        raise PreconditionError(
            f"PostgreSQL at {login.host}:{login.port} does not let {login.user} into {dbname}: "
            f"{str(error).strip().splitlines()[0]}",
            hint="mistudio-ops health says whether it runs; mistudio-ops deploy starts it",
        ) from error
    with connection:
        yield connection
