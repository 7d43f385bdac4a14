"""``mistudio-ops backup``: the group. Each of its commands is a module of its own with ``register(app)``."""

from collections.abc import Callable

import typer

from mistudio_ops.cli import (
    backup_check,
    backup_copy,
    backup_create,
    backup_list,
    backup_pin,
    backup_prune,
    backup_schedule,
    backup_verify,
)
from mistudio_ops.cli.default_command import DefaultGroup
from mistudio_ops.cli.verb import verb_app

app = verb_app(
    "Make a backup; the commands below look after those that were made. Alone it is `backup create`.",
    group=DefaultGroup,
)
#: In the order in which help lists them.
REGISTRARS: tuple[Callable[[typer.Typer], None], ...] = (
    backup_create.register,
    backup_list.register,
    backup_check.register,
    backup_prune.register,
    backup_pin.register,
    backup_verify.register,
    backup_copy.register,
    backup_schedule.register,
)  # fmt: skip

for register in REGISTRARS:
    register(app)
