"""The time that nobody can stop."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, clock_gettime

__all__ = ["now"]


def now() -> float:
    """Return seconds of the monotonic clock.

    Not ``time.monotonic``: freezegun replaces it in every module, and then no timeout would ever pass.
    """
    return clock_gettime(CLOCK_MONOTONIC)
