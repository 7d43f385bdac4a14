"""The embedded Redis-compatible store: its configuration and its unit."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.secret_values import SecretValues, redis_url
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.embedded import Program
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.templates import render


def config_file(environment: Environment) -> Path:
    """Return the path of its configuration, mode 0600."""
    return environment.paths.config / "store.conf"


def render_config(environment: Environment, secrets: SecretValues) -> str:
    """Return its configuration."""
    return render(
        "store.conf.j2",
        port=environment.redis_port,
        password=secrets.redis_password,
        directory=environment.paths.redis,
    )


def write_config(environment: Environment, secrets: SecretValues, account: Account) -> None:
    """Write its configuration where only its account reads it."""
    write_atomically(config_file(environment), render_config(environment, secrets), mode=0o600, own=account.own)


def unit(environment: Environment, program: Program, account: Account, secrets: SecretValues) -> Unit:
    """Return its unit; a change of its configuration changes the unit's identity, and so restarts it."""
    text = render_config(environment, secrets)
    return Unit(
        name="redis",
        kind="redis",
        argv=(str(program.path), str(config_file(environment))),
        environment={
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "MISTUDIO_UNIT_DIR": str(environment.paths.root),
            "MISTUDIO_CONFIG": hashlib.sha256(text.encode()).hexdigest()[:16],
        },
        directory=str(environment.paths.redis),
        stop_seconds=15,
        uid=account.uid if account.drop else None,
        gid=account.gid if account.drop else None,
        ports=(environment.redis_port,),
    )


def answers(environment: Environment, secrets: SecretValues) -> bool:
    """Return True when it answers PING; while it loads its file it does not."""
    import redis

    client = redis.Redis.from_url(redis_url(secrets, environment.redis_port, 0), socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.exceptions.RedisError:
        return False
    finally:
        client.close()


def wait_until_it_answers(
    environment: Environment,
    secrets: SecretValues,
    *,
    give_up: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for its PONG; ``give_up`` raises when waiting makes no sense any more."""
    while not answers(environment, secrets):
        give_up()
        sleep(0.03)
