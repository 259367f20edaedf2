"""Which set-ups took longest: the lines of ``--poor-container-durations``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SetUp", "slowest"]


class SetUp(NamedTuple):
    """How long something took to be there: seconds, what it is ("lab", "hosts a, b"), for which test."""

    seconds: float
    what: str
    test: str


def slowest(setups: Iterable[SetUp], count: int, least: float) -> list[str]:
    """Return a line for each of the ``count`` slowest (0: all) that took ``least`` seconds or more, slowest first.

    When that leaves some out because they were fast, a last line says how many.
    """
    ordered = sorted(setups, key=lambda each: each.seconds, reverse=True)
    wanted = ordered[:count] if count else ordered
    shown = [each for each in wanted if each.seconds >= least]
    lines = [f"{each.seconds * 1000:8.2f} ms  {each.what}  {each.test}".rstrip() for each in shown]
    if len(shown) < len(wanted):
        lines.append(f"({len(wanted) - len(shown)} of less than {least:g} s hidden, see --durations-min)")
    return lines
