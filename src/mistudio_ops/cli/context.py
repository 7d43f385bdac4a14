"""What every command gets: its reporter, its environment, and the options that all commands share."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mistudio_ops.errors import UsageError

if TYPE_CHECKING:
    from mistudio_ops.config.resolve import Resolved
    from mistudio_ops.domain.environment import Environment
    from mistudio_ops.operations.backup.workplace import Workplace
    from mistudio_ops.presentation.reporter import Reporter

DEFAULT_ENVIRONMENT = "local"


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options that every command takes."""

    environment: str | None = None
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    json: bool = False
    plain: bool = False
    verbose: bool = False


@dataclass(slots=True)
class Session:
    """One run of the program. The guard in ``cli.app`` finds here how to report what went wrong."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cwd: Path = field(default_factory=Path.cwd)
    reporter: "Reporter | None" = None
    verbose: bool = False

    def begin(self, options: CommonOptions, schema: str) -> "Reporter":
        """Choose the reporter, once the options are known."""
        from mistudio_ops.presentation.select import select_reporter

        self.verbose = options.verbose
        self.reporter = select_reporter(
            sys.stdout, sys.stderr, json=options.json, plain=options.plain, verbose=options.verbose, schema=schema,
            environ=self.environ,
        )  # fmt: skip
        return self.reporter


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command being run."""

    reporter: "Reporter"
    options: CommonOptions
    environ: Mapping[str, str]
    cwd: Path

    @property
    def environment_name(self) -> str:
        """The environment named by argument, option or ``MISTUDIO_ENV``; else ``local``."""
        return self.options.environment or self.environ.get("MISTUDIO_ENV") or DEFAULT_ENVIRONMENT

    @property
    def interactive(self) -> bool:
        """True when a question may be asked: stdin is a terminal, and no program reads the answer."""
        return sys.stdin.isatty() and not self.options.json

    def resolve(self, **flags: object) -> "Resolved":
        """Return the environment with the origin of each value. ``flags`` are options of this command, None if unset.

        Raises:
            UsageError: the configuration is wrong, or there is no such environment.
        """
        from mistudio_ops.config.resolve import resolve_environment

        overrides = (*self.options.overrides, *(f"{key}={value}" for key, value in flags.items() if value is not None))
        resolved = resolve_environment(
            self.environment_name, environ=self.environ, cwd=self.cwd, config=self.options.config, overrides=overrides
        )
        self.reporter.hide(*resolved.secrets)
        return resolved

    def environment(self, **flags: object) -> "Environment":
        """Return the environment that this command is about, fully resolved.

        Raises:
            UsageError: as ``resolve``.
        """
        return self.resolve(**flags).environment

    def workplace(self, **flags: object) -> "Workplace":
        """Return what operations on the environment's backups work with.

        Raises:
            UsageError: as ``resolve``.
        """
        from mistudio_ops.operations.backup.workplace import Workplace

        resolved = self.resolve(**flags)
        return Workplace(resolved.environment, self.reporter, self.environ, config_file=resolved.file)


def one_environment(argument: str | None, option: str | None) -> str | None:
    """Return the environment named on the command line, which may be said twice but not differently.

    Raises:
        UsageError: argument and option name different ones.
    """
    if argument and option and argument != option:
        raise UsageError(
            f"two environments are named: {argument!r} as argument and {option!r} with --env", hint="name one of them"
        )
    return argument or option
