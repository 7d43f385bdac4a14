"""Releases: an immutable record of what was deployed. Pure values and decisions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_ID = re.compile(r"r(\d{4,})")


@dataclass(frozen=True, slots=True)
class Source:
    """The code that would be deployed. ``code`` is a hash of the server, its migrations and its dependencies."""

    version: str
    code: str
    python: str
    package: str
    git_sha: str | None = None
    git_dirty: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """One release. ``created`` is ISO 8601 in UTC; ``schema`` the database revision that it was deployed with."""

    id: str
    created: str
    source: Source
    config: str
    schema: str | None = None
    proxy_generation: str | None = None

    def same_as(self, source: Source, config: str) -> bool:
        """Return True when deploying ``source`` with ``config`` would change nothing."""
        return self.source.code == source.code and self.source.python == source.python and self.config == config

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Release":
        """Return the release that ``document`` describes. Keys of later versions are ignored."""
        source = {name: document["source"].get(name) for name in Source.__dataclass_fields__}
        rest: dict[str, Any] = {name: document.get(name) for name in cls.__dataclass_fields__ if name != "source"}
        return cls(source=Source(**source), **rest)


def next_id(existing: Iterable[str]) -> str:
    """Return the id after the newest of ``existing``; ``r0001`` comes first."""
    numbers = [int(match[1]) for name in existing if (match := _ID.fullmatch(name))]
    return f"r{max(numbers, default=0) + 1:04d}"
