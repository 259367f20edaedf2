"""Dates as listings write them."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import time

__all__ = ["MONTHS", "seconds", "without_year"]

MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
"""Numbers of the English months by their first three letters (the locale of a program that never calls setlocale)."""

_DAY = 86400.0
_FULL_YEAR = 1000


@functools.lru_cache(maxsize=4096)
def _midnight(year: int, month: int, day: int) -> float | None:
    try:
        return dt.datetime(year, month, day, tzinfo=dt.timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None


def seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> float | None:
    """Return the seconds since 1970 of a time in UTC; None if there is no such time."""
    if not (hour < 24 and minute < 60 and second <= 60):  # noqa: PLR2004 - a clock's own numbers; 60 is a leap second
        return None
    start = _midnight(year, month, day) if year >= _FULL_YEAR else None
    return None if start is None else start + hour * 3600 + minute * 60 + second


def without_year(month: int, day: int, hour: int, minute: int, now: float | None = None) -> tuple[float | None, bool]:
    """Return (seconds, vague) of a date that ``ls -l`` writes without a year.

    ls leaves the year out for the last six months; servers do so for the future as well. So: this year, unless that is
    more than a day from now, then the year before, but *vague*, since it may be a file from the future. 29 February is
    in the nearest leap year that is past.
    """
    now = time.time() if now is None else now
    year = time.gmtime(now).tm_year
    found = seconds(year, month, day, hour, minute)
    if found is not None and found <= now + _DAY:
        return found, False
    for earlier in range(year - 1, year - 9, -1):
        found = seconds(earlier, month, day, hour, minute)
        if found is not None:
            return found, True
    return None, True
