"""The variables that ``mistudio-server`` is started with: SPEC 3.3.1's names, made of environment and secrets."""

from urllib.parse import urlsplit, urlunsplit

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues, database_url, redis_url
from mistudio_ops.domain.sizing import connections


def server_variables(environment: Environment, secrets: SecretValues) -> dict[str, str]:
    """Return what every unit of the server shares; ``environment.server`` has the last word."""
    variables = {
        "DATABASE_URL": environment.database_url or database_url(secrets, environment.postgres_port),
        "REDIS_URL": environment.redis_url or redis_url(secrets, environment.redis_port, 0),
        "REDIS_WS_URL": _second_database(environment.redis_url)
        if environment.redis_url
        else redis_url(secrets, environment.redis_port, 1),
        "REDIS_PREFIX": f"mistudio:{environment.name}",
        "DATA_DIR": str(environment.data),
        "INTERNAL_TOKEN": secrets.internal_token,
    }
    if not environment.on_loopback:
        # The backends listen on loopback, but the proxy before them does not.
        variables["AUTH_REQUIRED"] = "true"
    if environment.database_url is None:
        sizes = connections(environment)
        variables["DB_POOL_SIZE"] = str(sizes.pool_size)
        variables["DB_MAX_OVERFLOW"] = str(sizes.max_overflow)
    return variables | dict(environment.server)


def environment_file(environment: Environment, secrets: SecretValues) -> str:
    """Return the text of ``.env.<name>``: a shell can source it, pydantic-settings and systemd can read it."""
    lines = [
        f"# Variables of the environment {environment.name}, rendered by mistudio-ops deploy. Holds secrets.",
        "# To use them in a shell:  set -a; . ./this-file; set +a",
    ]
    lines += [f"{name}={_quoted(value)}" for name, value in server_variables(environment, secrets).items()]
    if "WEBSOCKET_EMIT_URL" not in environment.server:
        # Unset on purpose: workers publish straight to Redis, which no single backend's death can interrupt.
        emit = f"http://127.0.0.1:{environment.internal_port(1)}/internal/events"
        lines.append(f"# Only for a worker that cannot reach Redis:  WEBSOCKET_EMIT_URL={emit}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ValueError("a variable of an environment file may not hold a line break")
    if value and all(c.isalnum() or c in "_-./:@%+=," for c in value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"


def _second_database(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    number = path[1:] if path[1:].isdigit() else "0"
    if parts.scheme == "unix":
        return url  # a socket's path is not a database number; the prefix keeps the channels apart
    return urlunsplit(parts._replace(path=f"/{int(number) + 1}"))
