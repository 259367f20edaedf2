"""Searching a log while it grows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.log import LogText
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.clock import now

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_poorcontainer.container.log import Log

__all__ = ["QUIET", "Search", "compiled"]

QUIET = 0.01  # seconds without news after which an unfinished line counts as all there is for now
_CHUNK = 1 << 20
_OVERLAP = 64 << 10  # bytes: a match may be as long as this, over however many lines


class Search:
    """Looks for a pattern from a position on; each :meth:`look` reads only what has come since the last one.

    Memory is bounded, so a match longer than 64 KiB may be missed. A match that touches the end of an unfinished line
    may be half of one ("port 80" of "port 8080"): it counts when nothing more has come for :data:`QUIET` seconds.
    """

    def __init__(self, log: Log, pattern: re.Pattern[str], start: int) -> None:
        """Begin at position ``start``."""
        self._log = log
        self._pattern = pattern
        self._data = b""
        self._at = start
        self._held: tuple[int, float] | None = None
        self.match: re.Match[str] | None = None
        log.reading(id(self), start)

    def look(self, *, final: bool = False) -> re.Match[str] | None:
        """Return the match when it is there. ``final``: nothing more will come."""
        if self.match is None:
            self.match = self._look(final=final)
            self._log.reading(id(self), self._at)
            self._log.trim()
        return self.match

    @property
    def undecided(self) -> bool:
        """Whether there is a match that may be half of one: look again after :data:`QUIET` seconds."""
        return self._held is not None

    def _look(self, *, final: bool) -> re.Match[str] | None:
        end = self._log.end()
        if self._at >= end and self._held is None and not final:
            return None
        while True:
            high = min(end, self._at + _CHUNK)
            self._data += self._log.read(self._at, high)
            self._at = max(self._at, high)
            match = self._try(final=final or self._at < end)
            if match is not None or self._at >= end:
                return match

    def _try(self, *, final: bool) -> re.Match[str] | None:
        text = LogText.of(self._data, self._at - len(self._data))
        match = self._pattern.search(text)
        if match is None:
            self._held = None
            self._shorten()
            return None
        if final or match.end() < len(text) or text.endswith("\n"):
            return match
        time = now()
        if self._held is None or self._held[0] != self._at:
            self._held = self._at, time
        return match if time - self._held[1] >= QUIET else None

    def _shorten(self) -> None:
        """Forget what no match can begin in any more; what is left begins a line, for the sake of ``^``."""
        surplus = len(self._data) - _OVERLAP
        if surplus > 0:
            line = self._data.find(b"\n", surplus) + 1
            self._data = self._data[line or surplus :]

    def close(self) -> None:
        """Let the log give back what we have read."""
        self._log.reading(id(self), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compiled(regex: str | re.Pattern[str]) -> re.Pattern[str]:
    """Return a pattern for the text of a log. Raises :class:`UsageError` for one that cannot be searched there."""
    if isinstance(regex, str):
        try:
            return re.compile(regex)
        except re.error as error:
            raise UsageError(f"{regex!r} is no regular expression: {error}") from error
    if not isinstance(regex, re.Pattern) or not isinstance(regex.pattern, str):
        raise UsageError(f"a log is searched for a regular expression of str, not {regex!r}")
    return regex
