"""The table of ``poor-container ps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.container.kept import Kept

__all__ = ["age", "render"]

_TITLES = ("NAME", "TEST", "AGE", "ADDRESSES", "SERVICES", "LAB")
_SHORTENED = (1, 4, 3)  # what gives way first on a narrow terminal; a name must be whole, it is to be typed
_NARROWEST = 12
_GAP = "  "
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def render(containers: Sequence[Kept], now: float, width: int | None) -> str:
    """Return the table, a line for each; ``now`` is in seconds since the epoch, a ``width`` of None has no limit."""
    rows = [_TITLES, *(_row(one, now) for one in containers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        for column in _SHORTENED:
            excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
            widths[column] -= max(0, min(excess, widths[column] - min(widths[column], _NARROWEST)))
    lines = (
        _GAP.join(_shortened(cell, limit).ljust(limit) for cell, limit in zip(row, widths, strict=True)) for row in rows
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def age(seconds: float) -> str:
    """Return a time span in the largest unit that fits: "3h"."""
    for unit, letter in _UNITS:
        if seconds >= unit:
            return f"{int(seconds // unit)}{letter}"
    return f"{max(0, int(seconds))}s"


def _row(one: Kept, now: float) -> tuple[str, ...]:
    services = ", ".join(f"{name} ({state})" for name, state in one.services)
    cells = (one.name, one.test, age(now - one.created), " ".join(one.addresses), services, str(one.lab))
    return tuple(_printable(cell) or "-" for cell in cells)


def _printable(text: str) -> str:
    """Return the text without what would move the cursor or change the colours: ids of tests may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _shortened(text: str, limit: int) -> str:
    """Cut out the middle: a node id begins with the file and ends with the parameters."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
