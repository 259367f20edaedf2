"""Times, shares and rates as people write them: numbers in seconds, 0 to 1 and bit/s, texts with tc(8)'s suffixes."""

from __future__ import annotations

import re
import sys

from pytest_poorcontainer.errors import UsageError

__all__ = ["parse_rate", "parse_share", "parse_time", "rate_text", "share_text", "time_text"]

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z%]*)\s*", re.ASCII)
_TIMES = {
    **dict.fromkeys(("s", "sec", "secs"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs"), 1e-3),
    **dict.fromkeys(("us", "usec", "usecs"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nsecs"), 1e-9),
}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_RATES = {f"{prefix}bit": factor for prefix, factor in _PREFIXES.items()}
_PER_SECOND = re.compile(r"([kmgt]?i?)bps", re.ASCII)
_LONGEST = 3600.0  # seconds
_SLOWEST, _FASTEST = 8, 10**12  # bit/s


def parse_time(value: float | str, what: str) -> float:
    """Return seconds, given as a number of them or like "20ms", "1.5s", "150us". Raises :class:`UsageError`."""
    expected = f"{what} is a number of seconds, or a text like '20ms', '1.5s', '150us'"
    number, unit = _read(value, expected)
    if unit and unit not in _TIMES:
        raise UsageError(f"{expected}, not {value!r}: {unit!r} is no unit of time")
    if isinstance(value, str) and not unit and number:
        raise UsageError(f"{expected}, not {value!r}: say of what, '{value.strip()}ms' or '{value.strip()}s'")
    seconds = number * _TIMES.get(unit, 1.0)
    if seconds > _LONGEST:
        raise UsageError(f"{what}={value!r} is longer than an hour: is the unit right?")
    return seconds


def parse_share(value: float | str, what: str) -> float:
    """Return a share from 0 to 1, given as such or like "1%". Raises :class:`UsageError`, for 300 % too."""
    expected = f"{what} is a share of the packets from 0 to 1, or a text like '1%', '0.1%'"
    number, unit = _read(value, expected)
    if unit not in ("", "%"):
        raise UsageError(f"{expected}, not {value!r}: {unit!r} is no unit of it")
    share = number / 100 if unit else number
    if share > 1:
        hint = f"; perhaps '{value}%'" if not unit and number <= 100 else ""  # noqa: PLR2004 - per cent
        raise UsageError(f"{expected}, not {value!r}: no more than all packets can be concerned{hint}")
    return share


def parse_rate(value: float | str, what: str) -> float:
    """Return bits per second, given as a number of them or like "10mbit", "1gbit", "64kibit". Raises UsageError.

    "mbps" and its like are refused: to tc they are bytes, to most people bits.
    """
    expected = f"{what} is a number of bits per second, or a text like '10mbit', '1gbit', '64kbit'"
    number, unit = _read(value, expected)
    unit = unit.lower()
    match = _PER_SECOND.fullmatch(unit)
    if match is not None:
        raise UsageError(
            f"{expected}, not {value!r}: {unit} are bytes per second to tc(8) and bits to others; "
            f"say '{number:g}{match[1]}bit' or '{number * 8:g}{match[1]}bit'"
        )
    if unit and unit not in _RATES:
        raise UsageError(f"{expected}, not {value!r}: {unit!r} is no unit of a rate")
    if isinstance(value, str) and not unit:
        raise UsageError(f"{expected}, not {value!r}: say of what, '{value.strip()}kbit' or '{value.strip()}mbit'")
    rate = number * _RATES.get(unit, 1)
    if not _SLOWEST <= rate <= _FASTEST:
        hint = "cut() lets nothing pass" if rate < _SLOWEST else "leave it out for as fast as the machine can"
        raise UsageError(f"{what}={value!r} is not between {_SLOWEST} bit/s and 1 Tbit/s: {hint}")
    return rate


def time_text(seconds: float) -> str:
    """Return a time as :func:`parse_time` takes it: "20ms"."""
    unit, factor = next(((unit, one) for unit, one in (("s", 1.0), ("ms", 1e-3)) if seconds >= one), ("us", 1e-6))
    return f"{seconds / factor:.4g}{unit}"


def share_text(share: float) -> str:
    """Return a share as :func:`parse_share` takes it: "1%"."""
    return f"{share * 100:.4g}%"


def rate_text(rate: float) -> str:
    """Return a rate as :func:`parse_rate` takes it: "10mbit"."""
    prefix, factor = next(((unit, one) for unit, one in (("g", 1e9), ("m", 1e6), ("k", 1e3)) if rate >= one), ("", 1.0))
    return f"{rate / factor:.6g}{prefix}bit"


def _read(value: float | str, expected: str) -> tuple[float, str]:
    """Return the number and its unit."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None:
            raise UsageError(f"{expected}, not {value!r}")
        return float(match[1]), match[2]
    # Neither "nan" nor an int that is no float any more is less than that.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise UsageError(f"{expected}, not {value!r}")
    if value < 0:
        raise UsageError(f"{expected}, not {value!r}: it cannot be negative")
    return float(value), ""
