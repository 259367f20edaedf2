"""Numbers with units, as the configuration has them, and as people read them."""

from __future__ import annotations

import re

from pytest_poorcontainer.mirror.errors import BadConfig

__all__ = ["bytes_of", "human_bytes", "human_days", "human_seconds", "seconds_of"]

_TIMES = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800, "": 1, "ms": 0.001}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_STEP = 1024
_SHORT = 10  # seconds, below which a tenth of one matters
_YEAR = 365  # days
_LONG = 2  # of a unit, before the next larger one is used


def seconds_of(value: object) -> float:
    """Return the seconds of a number, or of a text such as "90s", "15min", "6h", "2d"; raises :class:`BadConfig`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w|)", value) if isinstance(value, str) else None
    if not found:
        raise BadConfig(f'"{value}" is no time: write a number of seconds, or "90s", "15min", "6h", "2d"')
    return float(found[1]) * _TIMES[found[2]]


def bytes_of(value: object) -> int:
    """Return the bytes of a number, or of a text such as "64K", "10M", "1.5G"; raises :class:`BadConfig`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value) if isinstance(value, str) else None
    if not found:
        raise BadConfig(f'"{value}" is no size: write a number of bytes, or "64K", "10M", "1.5G"')
    return int(float(found[1]) * _SIZES[found[2]])


def human_bytes(count: float | None) -> str:
    """Return a size for people, in binary units."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"  # noqa: PLR2004 - three digits
        count /= _STEP
    return f"{count:.1f} TiB"


def human_days(days: float) -> str:
    """Return a forecast for people: days, and years where they are many."""
    if days >= _LONG * _YEAR:
        return f"{days / _YEAR:.0f} years"
    return "a day" if days < _LONG else f"{days:.0f} days"


def human_seconds(seconds: float | None) -> str:
    """Return a duration for people, in the one unit that says it best."""
    if seconds is None:
        return "-"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= _LONG * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.1f} s" if seconds < _SHORT else f"{seconds:.0f} s"
