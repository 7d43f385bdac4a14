"""pgBackRest as an optional engine: what its configuration says. Pure text."""

from pathlib import Path

from mistudio_ops.domain.environment import Environment

CONFIG_FILE = "pgbackrest.conf"
_TEXT = """\
# pgBackRest for the environment {name}: every change of the database is kept, so that it can go back to any moment.
# Write this to {config}, readable by the account that PostgreSQL runs as ({account}). Then, once:
#   install -d -m 0700 -o {account} {repository}
#   as the superuser in the database, and restart the unit postgres afterwards:
#     ALTER SYSTEM SET archive_mode = on;
#     ALTER SYSTEM SET archive_timeout = '5min';
#     ALTER SYSTEM SET archive_command = '{command} archive-push %p';
#   as {account}, with PGPASSWORD set to postgres_admin_password of secrets.json:
#     {command} stanza-create
#     {command} --type=full backup     (again every week; --type=incr every night)
# It must be a pgBackRest that knows the server's major version. To go back:
#   mistudio-ops restore --to-time "2026-11-23 02:00:00+00" -e {name}
[global]
repo1-path={repository}
repo1-retention-full=2
compress-type=zst
start-fast=y
lock-path={run}/pgbackrest
spool-path={run}/pgbackrest-spool
log-level-file=off

[{stanza}]
pg1-path={data}
pg1-port={port}
pg1-socket-path={run}
pg1-user=postgres
"""


def stanza(environment: Environment) -> str:
    """Return pgBackRest's name for the environment's cluster."""
    return f"mistudio-{environment.name}"


def config_file(environment: Environment) -> Path:
    """Return where its configuration is looked for."""
    return environment.paths.config / CONFIG_FILE


def repository(environment: Environment) -> Path:
    """Return where it keeps its own backups: beside ours, as PostgreSQL's account writes there."""
    return environment.backups.with_name(f"{environment.backups.name}.pgbackrest")


def render_pgbackrest(environment: Environment, run: Path, account: str) -> str:
    """Return the configuration, with the steps that lead to it. ``run`` is the folder of PostgreSQL's socket."""
    config = config_file(environment)
    return _TEXT.format(
        name=environment.name, config=config, account=account, repository=repository(environment), run=run,
        stanza=stanza(environment), data=environment.paths.postgres, port=environment.postgres_port,
        command=f"pgbackrest --config={config} --stanza={stanza(environment)}",
    )  # fmt: skip
