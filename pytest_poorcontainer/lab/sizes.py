"""Numbers of bytes, as people write and read them."""

from __future__ import annotations

import math
import re

from pytest_poorcontainer.errors import UsageError

__all__ = ["parse_size", "shown_size"]

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)\s*", re.ASCII)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(size: int | str, what: str = "size") -> int:
    """Return a number of bytes, given as such or like "64M": k, M, G, T are powers of two, as for tmpfs(5).

    Raises :class:`UsageError`.
    """
    expected = f"{what} is a number of bytes, or a text like '512k', '64M', '1.5G' (powers of two)"
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise UsageError(f"{expected}, not {size!r}")
    if isinstance(size, int):
        number = size
    else:
        match = _SIZE.fullmatch(size)
        if match is None:
            raise UsageError(f"{expected}, not {size!r}")
        number = math.floor(float(match[1]) * (1 << _UNITS[match[2].lower()]))
    if number <= 0:
        raise UsageError(f"{what} is more than nothing, not {size!r}")
    return number


def shown_size(size: int) -> str:
    """Return a number of bytes for people: "64M" where it is whole, else all its digits."""
    for unit in ("T", "G", "M", "k"):
        whole, rest = divmod(size, 1 << _UNITS[unit.lower()])
        if whole and not rest:
            return f"{whole}{unit}"
    return str(size)
