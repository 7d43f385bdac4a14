"""Sizes, spans and numbers as a person reads them. Pure."""

from datetime import timedelta

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000.0


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 row`` and ``5,000 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_size(size: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"  # noqa: PLR2004


def human_age(age: timedelta) -> str:
    """Return a span of time in its two largest units; one in the future has a minus sign (a clock went back)."""
    seconds = int(age.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{sign}{days} d {hours} h"
    if hours:
        return f"{sign}{hours} h {minutes} min"
    return f"{sign}{minutes} min" if minutes else f"{sign}{seconds} s"
