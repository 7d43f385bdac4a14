"""Running functions side by side, and giving up on those that do not come back.

Daemon threads, not an executor: a thread that hangs in a library (a resolver, a half-open connection) cannot be
cancelled, and must neither delay the report nor keep the program from ending.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a function returned, or raised; both are None when it did not come back in time."""

    value: T | None
    error: Exception | None
    seconds: float


def side_by_side(
    tasks: Mapping[str, tuple[Callable[[], T], float]], *, clock: Callable[[], float] = time.monotonic
) -> dict[str, Outcome[T]]:
    """Run every task in a thread of its own and return the outcomes by name.

    Args:
        tasks: for each name the function and the seconds after which it is given up.
        clock: monotonic seconds.
    """
    begun = clock()
    done: SimpleQueue[tuple[str, Outcome[T]]] = SimpleQueue()
    for name, (function, _) in tasks.items():
        threading.Thread(target=_run, args=(name, function, done, clock), name=f"check-{name}", daemon=True).start()
    outcomes: dict[str, Outcome[T]] = {}
    while len(outcomes) < len(tasks):
        waiting = {name: begun + limit for name, (_, limit) in tasks.items() if name not in outcomes}
        try:
            name, outcome = done.get(timeout=max(0.0, min(waiting.values()) - clock()))
        except Empty:
            outcomes |= {name: Outcome(None, None, clock() - begun) for name, end in waiting.items() if end <= clock()}
        else:
            outcomes.setdefault(name, outcome)
    return {name: outcomes[name] for name in tasks}


def _run(
    name: str,
    function: Callable[[], T],
    done: "SimpleQueue[tuple[str, Outcome[T]]]",
    clock: Callable[[], float],
) -> None:
    begun = clock()
    try:
        outcome = Outcome(function(), None, clock() - begun)
    except Exception as error:  # noqa: BLE001 - whatever a check raises is a finding
        outcome = Outcome(None, error, clock() - begun)
    done.put((name, outcome))
