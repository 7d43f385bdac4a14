"""Versions of the program and of what it uses. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions by name; None where something is not installed."""

    mistudio: str
    python: str
    platform: str
    libraries: Mapping[str, str | None]
