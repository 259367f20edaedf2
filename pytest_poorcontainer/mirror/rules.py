"""What belongs to a mirror: include and exclude patterns in rsync's syntax (rsync(1), FILTER RULES)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.mirror.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OURS", "Rules"]

OURS = ".poor-mirror"
"""The name, at the top of every destination, of what is ours: never taken from a source, never deleted."""

_PRIVATE = re.compile(re.escape(OURS) + r"(?:\.manifest)?(?:/.*)?")


class _Rule(NamedTuple):
    """One pattern: whether it includes, whether it is for directories only."""

    includes: bool
    directories_only: bool
    match: re.Pattern[str]
    text: str


class Rules:
    """An ordered list of patterns; the first that matches decides, and what none matches belongs to the mirror.

    A pattern with a leading slash is anchored at the top; one with a trailing slash is for directories; ``*`` and ``?``
    stop at slashes, ``**`` does not; ``dir/***`` is the directory and all below it. A directory that is excluded is not
    looked into.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = (), filters: Iterable[str] = ()) -> None:
        """``filters`` are rules with their signs ("+ /a/**", "- *.tmp"); then come ``include``, then ``exclude``.

        Raises :class:`BadConfig` for a pattern that is none.
        """
        self._rules = [_signed(text) for text in filters]
        self._rules += [_rule(text, includes=True) for text in include]
        self._rules += [_rule(text, includes=False) for text in exclude]

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def wanted(self, path: str, is_directory: bool) -> bool:
        """Whether a path (relative to the top, without a leading slash) belongs to the mirror."""
        if path.startswith(OURS) and _PRIVATE.fullmatch(path):
            return False
        return not self.leave_out(path, is_directory)

    def leave_out(self, path: str, is_directory: bool = False) -> bool:
        """Whether one of the rules leaves a path out; what is ours belongs to no mirror, but to no rule either."""
        for rule in self._rules:
            if (is_directory or not rule.directories_only) and rule.match.fullmatch(path):
                return not rule.includes
        return False

    def for_rsync(self) -> list[str]:
        """Return the same as arguments of rsync's, what is ours first."""
        private = [f"--filter={sign} /{name}" for sign in ("P", "-") for name in (OURS, f"{OURS}.manifest")]
        return [*private, *(f"--filter={'+' if rule.includes else '-'} {rule.text}" for rule in self._rules)]


def _signed(text: str) -> _Rule:
    sign, space, pattern = text.partition(" ")
    if sign not in {"+", "-"} or not space:
        raise BadConfig(f'the filter "{text}" is none: write "+ PATTERN" or "- PATTERN"')
    return _rule(pattern, includes=sign == "+")


def _rule(text: str, *, includes: bool) -> _Rule:
    if not text.strip("/") or "\n" in text or "\0" in text:
        raise BadConfig(f'the pattern "{text}" matches nothing: write a name or a path, as for rsync')
    pattern = text
    directories_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    anchored = pattern.startswith("/")
    below = pattern.endswith("/***")
    pattern = pattern.removesuffix("/***").lstrip("/")
    try:
        compiled = re.compile(
            ("" if anchored else "(?:.*/)?") + _regex(pattern) + ("(?:/.*)?" if below else ""), re.DOTALL
        )
    except re.error as error:
        raise BadConfig(f'the pattern "{text}" cannot be read: {error}') from None
    return _Rule(includes, directories_only, compiled, text)


def _regex(pattern: str) -> str:
    """Translate one pattern."""
    out, place = [], 0
    while place < len(pattern):
        rest = pattern[place:]
        found = re.match(r"\*\*+|\*|\?|\[[!^]?\]?[^\]]*\]|\\.", rest, re.DOTALL)
        piece = found[0] if found else rest[0]
        place += len(piece)
        if piece.startswith("**"):
            out.append(".*")
        elif piece == "*":
            out.append("[^/]*")
        elif piece == "?":
            out.append("[^/]")
        elif piece.startswith("[") and len(piece) > 1:
            inner = piece[1:-1].replace("\\", "\\\\")
            negated = inner[:1] in {"!", "^"}
            inner = (inner[1:] if negated else inner).replace("[", r"\[").replace("]", r"\]")
            out.append(f"(?!/)[{'^' if negated else ''}{inner}]")
        else:
            out.append(re.escape(piece[-1]))
    return "".join(out)
