"""A group that runs one of its commands when none is named: ``backup -e lab`` is ``backup create -e lab``."""

from typing import TYPE_CHECKING, Any, ClassVar

import typer.core

if TYPE_CHECKING:
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter
    from typer._click.shell_completion import CompletionItem


class DefaultGroup(typer.core.TyperGroup):
    """Options may stand before the command's name or after it. Subclasses set ``default``."""

    default: ClassVar[str] = "create"

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Put the command's name first, adding it where there is none; a lone ``--help`` is the group's."""
        completing_the_name = not args and ctx.resilient_parsing
        if not completing_the_name and args[:1] != ["--help"]:
            args = self._with_name_first(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the options of the default command, then the list of commands."""
        default = self._default()
        default.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the exit codes of the default command."""
        self._default().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: "Context", incomplete: str) -> "list[CompletionItem]":
        """Complete the name of a command, or an option of the default one."""
        return [*super().shell_complete(ctx, incomplete), *self._default().shell_complete(ctx, incomplete)]

    def _default(self) -> "Command":
        return self.commands[self.default]

    def _with_name_first(self, args: list[str]) -> list[str]:
        place = self._place_of_name(args)
        if place is None:
            return [self.default, *args]
        return [args[place], *args[:place], *args[place + 1 :]]

    def _place_of_name(self, args: list[str]) -> int | None:
        """Return where the first argument is that is neither an option nor the value of one."""
        taking = self._options_with_a_value()
        value_follows = False
        for place, argument in enumerate(args):
            if value_follows:
                value_follows = False
            elif argument == "--":
                return None
            elif argument.startswith("-"):
                value_follows = argument in taking
            else:
                return place
        return None

    def _options_with_a_value(self) -> set[str]:
        options: list[Any] = [one for command in self.commands.values() for one in command.params]
        return {
            name
            for one in options
            if one.param_type_name == "option" and not one.is_flag
            for name in (*one.opts, *one.secondary_opts)
        }
