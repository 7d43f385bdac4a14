"""What a scheduled run did, as values: each of its stages, and how it ended. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from mistudio_ops.errors import ExitCode

StageName = Literal["create", "restore verification", "push", "prune"]
Outcome = Literal["ok", "failed", "skipped"]
#: Without these there is no backup to count on, and nothing may be removed.
ESSENTIAL = frozenset({"create", "restore verification"})


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; ``detail`` says what it made, why it failed, or why it was skipped."""

    name: StageName
    outcome: Outcome
    detail: str = ""
    hint: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A whole run. ``backup_id`` is what it made."""

    environment: str
    begun: datetime
    ended: datetime
    stages: tuple[Stage, ...]
    backup_id: str | None = None

    @property
    def failures(self) -> tuple[Stage, ...]:
        """The stages that failed."""
        return tuple(one for one in self.stages if one.outcome == "failed")

    @property
    def exit_code(self) -> ExitCode:
        """0; 1 when there is no proven backup of tonight; 3 when something after it failed."""
        if any(one.name in ESSENTIAL for one in self.failures):
            return ExitCode.FAILED
        return ExitCode.PARTIAL if self.failures else ExitCode.OK

    @property
    def problem(self) -> str | None:
        """Return what failed, in one line."""
        return "; ".join(f"{one.name}: {one.detail}" for one in self.failures) or None

    def render(self) -> str:
        """Return the JSON form in which the last run is remembered."""
        document = asdict(self) | {"begun": self.begun.isoformat(), "ended": self.ended.isoformat()}
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> "ScheduledRun | None":
        """Return the run that ``text`` is, None where it is garbled: it only says what happened last time."""
        try:
            return _run(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _run(document: Mapping[str, Any]) -> ScheduledRun:
    return ScheduledRun(
        str(document["environment"]),
        datetime.fromisoformat(document["begun"]),
        datetime.fromisoformat(document["ended"]),
        tuple(Stage(**stage) for stage in document["stages"]),
        document["backup_id"],
    )
