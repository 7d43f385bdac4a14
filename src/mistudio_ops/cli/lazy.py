"""A command group that imports a verb's module only when that verb is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, cast

import typer.core
import typer.main

if TYPE_CHECKING:
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter
    from typer._click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb's ``app`` is, and the line that stands for it in the list of commands."""

    module: str
    summary: str
    hidden: bool = False


class LazyGroup(typer.core.TyperGroup):
    """Lists its verbs from a table. Subclasses set ``verbs``."""

    verbs: ClassVar[Mapping[str, Verb]] = {}

    def list_commands(self, ctx: "Context") -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(self.verbs)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """Import the module of one verb."""
        del ctx
        if cmd_name not in self.commands and cmd_name in self.verbs:
            app = import_module(self.verbs[cmd_name].module).app
            self.commands[cmd_name] = cast("Any", typer.main.get_command(app))
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the list of commands without importing one of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.verbs.items() if not verb.hidden])

    def shell_complete(self, ctx: "Context", incomplete: str) -> "list[CompletionItem]":
        """Complete the name of a verb without importing one of them."""
        from typer._click.shell_completion import CompletionItem

        names = [name for name, verb in self.verbs.items() if name.startswith(incomplete) and not verb.hidden]
        options = super(typer.core.TyperGroup, self).shell_complete(ctx, incomplete)
        return [*(CompletionItem(name, help=self.verbs[name].summary) for name in names), *options]

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, Command | None, list[str]]":
        """Find the verb; a misspelt one gets the nearest known one named."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            near = get_close_matches(args[0], [name for name, verb in self.verbs.items() if not verb.hidden], n=1)
            ctx.fail(f"No such command {args[0]!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
        return super().resolve_command(ctx, args)
