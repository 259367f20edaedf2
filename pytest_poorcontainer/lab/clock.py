"""The time that nobody can stop."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, clock_gettime_ns

__all__ = ["now", "wall"]


def now() -> float:
    """Return seconds of the monotonic clock.

    Not ``time.monotonic``: freezegun replaces it in every module, and then no timeout would ever pass.
    """
    return clock_gettime(CLOCK_MONOTONIC)


def wall() -> int:
    """Return ns since 1970: the kernel's time, in which it stamps frames, whatever a test makes of ``time.time``."""
    return clock_gettime_ns(CLOCK_REALTIME)
