"""Where the process engine keeps its files below an environment's state directory."""

from pathlib import Path

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.drivers.supervisor import SOCKET_PATH_LIMIT
from mistudio_ops.errors import PreconditionError

#: What marks a folder as an environment's state directory; without it ``down --purge`` removes nothing.
MARKER = "mistudio-environment.json"
#: What ``restore --to-time`` keeps of the cluster from before, and what a kill leaves of one being recovered.
KEPT_CLUSTER, PARTIAL_CLUSTER = "postgres.before-", "postgres.to-time-partial-"
#: supervisord binds to this name with its process id appended, and renames; PostgreSQL to ".s.PGSQL.NNNNN".
_LONGEST_SOCKET = "run/supervisor.sock.4194304"
_POSTGRES_SOCKET = "run/postgres/.s.PGSQL.65535"
_FORBIDDEN = frozenset(" \t\"';#$%\\{}*?[]")


def marker(paths: EnvironmentPaths) -> Path:
    """Return the marker file."""
    return paths.root / MARKER


def supervisor_socket(paths: EnvironmentPaths) -> Path:
    """Return supervisord's socket."""
    return paths.run / "supervisor.sock"


def definition_file(paths: EnvironmentPaths, unit: str) -> Path:
    """Return the file that a unit's launcher reads; it holds secrets."""
    return paths.config / "units" / f"{unit}.json"


def run_file(paths: EnvironmentPaths, unit: str) -> Path:
    """Return the file in which a unit's launcher says what it started."""
    return paths.run / "units" / f"{unit}.json"


def log_file(paths: EnvironmentPaths, unit: str) -> Path:
    """Return a unit's log."""
    return paths.logs / f"{unit}.log"


def launcher(paths: EnvironmentPaths) -> Path:
    """Return the launcher's copy: the package may change or go while units are running."""
    return paths.runtime / "launch.py"


def postgres_run(paths: EnvironmentPaths) -> Path:
    """Return the folder of PostgreSQL's socket, mode 0700."""
    return paths.run / "postgres"


def nginx_run(paths: EnvironmentPaths) -> Path:
    """Return nginx's folder for its pid and temporary files."""
    return paths.run / "nginx"


def python_home(paths: EnvironmentPaths) -> Path:
    """Return HOME of the Python units: libraries keep caches there, never in an operator's home."""
    return paths.run / "home"


def environment_file(paths: EnvironmentPaths, name: str) -> Path:
    """Return ``.env.<name>``."""
    return paths.root / f".env.{name}"


def current_release(paths: EnvironmentPaths) -> Path:
    """Return the symbolic link to the current release."""
    return paths.releases / "current"


def known_entries(name: str) -> frozenset[str]:
    """Return the names that we make in a state directory."""
    return frozenset(
        {
            MARKER, "secrets.json", f".env.{name}", "config", "run", "logs", "postgres", "redis",
            "runtime", "releases", "data", "journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm", "lock",
        }
    )  # fmt: skip


def is_ours(entry: str, environment: str) -> bool:
    """Return True for a name that we make in a state directory, also half-written when a deploy was killed."""
    known = known_entries(environment)
    half_written = any(entry.startswith(f".{name}.") for name in known) and entry.endswith(".partial")
    return entry in known or half_written or entry.startswith((KEPT_CLUSTER, PARTIAL_CLUSTER))


def check_state_dir(paths: EnvironmentPaths) -> None:
    """Refuse a state directory whose path the servers' configuration files or unix sockets cannot carry.

    Raises:
        PreconditionError: it names the directory, what is wrong with it, and the remedy.
    """
    hint = "set MISTUDIO_STATE_DIR (or state_dir in mistudio.toml) to {}"
    odd = sorted({c for c in str(paths.root) if c in _FORBIDDEN or not c.isprintable()})
    if odd:
        raise PreconditionError(
            f"the state directory {paths.root} has characters in its path that configuration files give a meaning: "
            + " ".join(repr(c) for c in odd),
            hint=hint.format("a path of letters, digits and ._-/"),
        )
    longest = max(len(_LONGEST_SOCKET), len(_POSTGRES_SOCKET)) + 1
    length = len(bytes(paths.root))
    if length + longest > SOCKET_PATH_LIMIT:
        raise PreconditionError(
            f"the state directory {paths.root} has {length} bytes in its path; unix sockets below it need a path of at "
            f"most {SOCKET_PATH_LIMIT - longest}",
            hint=hint.format("a shorter path"),
        )
