"""``mistudio-server``: the processes of the runtime and what an operator does to it. Imports are lazy on purpose."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mistudio_server.settings import Settings

USAGE_ERROR = 2
LOCKED = 11
Result = TypeVar("Result")

app = typer.Typer(
    name="mistudio-server",
    help="The runtime of MiStudio: API, worker, beat, migrations. Settings come from environment variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
token = typer.Typer(help="Bearer tokens of the API.", no_args_is_help=True)
app.add_typer(token, name="token")


class _Scope(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def run() -> None:
    """Serve the API (HOST:PORT) and the internal listener (INTERNAL_HOST:INTERNAL_PORT) until SIGTERM."""
    import gc  # noqa: PLC0415

    from mistudio_server.api.lean_imports import CONSOLE, DEVELOPMENT, SOCKET_CLIENTS, without  # noqa: PLC0415

    gc.disable()  # imports make no garbage worth looking for: 0.1 s of CPU
    with without(*SOCKET_CLIENTS, *CONSOLE, *DEVELOPMENT):
        settings = _settings("backend")
        from mistudio_server.api.serving import run as serve  # noqa: PLC0415
        from mistudio_server.app import create_app, create_internal_app  # noqa: PLC0415

        api = create_app(settings)
    gc.enable()
    gc.freeze()
    raise typer.Exit(serve(settings, api, create_internal_app(api)))


@app.command()
def worker() -> None:
    """Run trainings, extractions and maintenance until SIGTERM, which checkpoints and requeues them."""
    settings = _settings("worker")
    from mistudio_server.workers.main import run_worker  # noqa: PLC0415

    raise typer.Exit(run_worker(settings))


@app.command()
def beat() -> None:
    """Send the periodic tasks: reaper, partitions, system metrics."""
    settings = _settings("beat")
    from mistudio_server.workers.main import run_beat  # noqa: PLC0415

    raise typer.Exit(run_beat(settings))


@app.command()
def migrate(
    to: Annotated[str, typer.Option(help="Revision to go to; an older one goes down, which loses data.")] = "head",
    check: Annotated[bool, typer.Option("--check", help="Only tell; exit 1 when it is not at the head.")] = False,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Make the coming months' partitions too, as beat does every day.")
    ] = False,
    lock_wait: Annotated[
        float | None,
        typer.Option(min=0, max=86_400, help="Seconds to wait for other maintenance; default: LOCK_WAIT_SECONDS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the database to a revision of the shipped migrations.

    A backup, the archiver or another migration is waited for; exit 11 when it goes on for longer than --lock-wait.
    """
    settings = _settings()
    from mistudio_server.commands.schema_change import change  # noqa: PLC0415

    def on_wait(who: str) -> None:
        typer.echo(f"mistudio-server: waiting for {who}", err=True)

    target = None if check else to
    found = _explained(lambda: change(settings, target, partitions=partitions, lock_wait=lock_wait, on_wait=on_wait))
    document = {"current": found.current, "head": found.head, "at_head": found.at_head}
    _show(document if as_json else f"at {found.current or 'nothing'}, head is {found.head}")
    if check and not found.at_head:
        raise typer.Exit(1)


@app.command()
def check(
    only: Annotated[
        list[str] | None, typer.Option(help="database, migrations, partitions, redis or worker; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds for each check; they run at once.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Check what the runtime depends on, and that a worker processes a task. Exit 0 if all is well, else 1."""
    from mistudio_server.commands import checks  # noqa: PLC0415

    unknown = sorted(set(only or ()) - set(checks.NAMES))
    if unknown:
        _fail(f"no check {', '.join(unknown)}; known: {', '.join(checks.NAMES)}", USAGE_ERROR)
    report = checks.run(_settings(), only or checks.NAMES, timeout)
    if as_json:
        _show(report)
    else:
        for line in report["checks"]:
            mark, hint = "ok  " if line["ok"] else "FAIL", f" ({line['hint']})" if line["hint"] else ""
            _show(f"{mark} {line['name']:<11} {line['latency_ms']:>8} ms  {line['evidence']}{hint}")
    raise typer.Exit(0 if report["ok"] else 1)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from mistudio_server.app import create_app  # noqa: PLC0415
    from mistudio_server.settings import Settings  # noqa: PLC0415

    _show(create_app(Settings()).openapi())


@token.command("create")
def token_create(
    name: Annotated[str, typer.Option(help="Whose it is, or what for.")],
    scopes: Annotated[str, typer.Option(help="Comma separated: read, write (includes read), admin (all).")] = "read",
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days of validity; for ever if unset.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it. It is shown this once."""
    wanted = [part.strip() for part in scopes.split(",") if part.strip()]
    unknown = sorted(set(wanted) - {scope.value for scope in _Scope})
    if unknown or not wanted:
        _fail(f"--scopes {scopes!r}: choose from {', '.join(_Scope)}, separated by commas", USAGE_ERROR)
    if not name.strip() or not name.isprintable():
        _fail("--name must be text without control characters", USAGE_ERROR)
    from mistudio_server.commands import tokens  # noqa: PLC0415

    made = _explained(lambda: tokens.create(_settings(), name, wanted, expires_days))
    _show(made if as_json else made["token"])


@token.command("list")
def token_list(as_json: Json = False) -> None:
    """List tokens, without their secrets."""
    from mistudio_server.commands import tokens  # noqa: PLC0415

    rows = _explained(lambda: tokens.listing(_settings()))
    if as_json:
        _show({"items": rows})
        return
    for row in rows:
        state = "revoked" if row["revoked_at"] else f"expires {row['expires_at'] or 'never'}"
        used = f"last used {row['last_used_at'] or 'never'}"
        _show("  ".join([row["id"], row["name"], ",".join(row["scopes"]), state, used]))


@token.command("revoke")
def token_revoke(token_id: Annotated[str, typer.Argument(help="As `token list` shows it: tok_...")]) -> None:
    """Revoke a token: the next request with it is refused."""
    from mistudio_server.commands import tokens  # noqa: PLC0415

    _explained(lambda: tokens.revoke(_settings(), token_id))
    _show(f"revoked {token_id}")


def _settings(unit: str | None = None) -> "Settings":
    """Return the settings, or say which variable is wrong and exit 2. A ``unit`` also gets its logs set up."""
    from pydantic import ValidationError  # noqa: PLC0415

    from mistudio_server.settings import Settings  # noqa: PLC0415

    try:
        settings = Settings()
    except ValidationError as error:
        from mistudio_server.commands.setting_errors import explain  # noqa: PLC0415

        _fail("\n".join(explain(error)), USAGE_ERROR)
    if unit:
        from mistudio_server.observability.logs import configure  # noqa: PLC0415

        configure(settings, unit=unit)
    return settings


def _explained(work: "Callable[[], Result]") -> "Result":
    from mistudio_server.errors import LockedError, StudioError  # noqa: PLC0415

    try:
        return work()
    except StudioError as error:
        _fail(f"{error.detail} {error.hint or ''}".strip(), LOCKED if isinstance(error, LockedError) else 1)


def _show(document: object) -> None:
    typer.echo(document if isinstance(document, str) else json.dumps(document, indent=2, default=str))


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"mistudio-server: {message}", err=True)
    sys.exit(code)
