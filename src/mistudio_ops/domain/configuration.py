"""What ``config show`` and ``config check`` find. Pure values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ShownValue:
    """One key of an environment. A secret's value is masked here already."""

    key: str
    value: Any
    origin: str
    detail: str


@dataclass(frozen=True, slots=True)
class ShownConfiguration:
    """All keys of one environment; ``file`` is the configuration file that was read, if there is one."""

    environment: str
    file: str | None
    values: Sequence[ShownValue]


@dataclass(frozen=True, slots=True)
class CheckedConfiguration:
    """A configuration that is valid. ``warnings`` are things that are allowed and probably not meant."""

    file: str | None
    environments: Sequence[str]
    warnings: Sequence[str]
