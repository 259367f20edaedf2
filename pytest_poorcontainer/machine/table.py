"""The diagnosis as text for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["render"]

_NARROWEST = 40
_GREEN, _RED, _FAINT, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
_PRIVILEGE = {
    "root": "namespaces are made with this user's own privilege",
    "userns": "namespaces are made in a user namespace, without privilege",
    "": "no namespaces can be made",
}


def render(diagnosis: dict[str, Any], width: int = 100, colour: bool = False) -> str:
    """Return the diagnosis as lines of at most ``width`` columns (never below 40), each ended by a newline."""
    lines = _Lines(max(width, _NARROWEST), colour)
    engine = f", which looks like the inside of {diagnosis['engine']}" if diagnosis["engine"] else ""
    lines.wrapped(f"kernel: Linux {diagnosis['kernel']} on {diagnosis['architecture']}{engine}", indent=8)
    lines.wrapped(f"who: {diagnosis['user']} (uid {diagnosis['uid']}); {_PRIVILEGE[diagnosis['privilege']]}", indent=8)
    lines.wrapped(f"level: {_level(diagnosis['level'])}", indent=8)
    lines.heading("fixture", diagnosis["fixtures"])
    lines.heading("feature", diagnosis["features"])
    return "".join(f"{line}\n" for line in lines.done)


def _level(level: dict[str, Any]) -> str:
    text = level["name"] or "none"
    if level["reason"]:
        text += f"; {level['reason']}"
    if not level["built"]:
        text += "; containers can be made on the level namespaces only, so our fixtures are skipped here"
    return text


class _Lines:
    def __init__(self, width: int, colour: bool) -> None:
        self.done: list[str] = []
        self._width = width
        self._colour = colour
        self._said: dict[str, str] = {}

    def wrapped(self, text: str, indent: int, first: str = "") -> None:
        """Add a paragraph whose further lines are indented."""
        self.done += textwrap.wrap(
            text,
            self._width,
            initial_indent=first,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        ) or [first.rstrip()]

    def heading(self, title: str, rows: dict[str, dict[str, Any]]) -> None:
        """Add a table."""
        column = max(len(name) for name in (title, *rows)) + 2
        self._said.clear()
        self.done += ["", self._paint(f"{title:{column}}works", _FAINT)]
        for name, row in rows.items():
            works = "yes" if row["works"] else "no"
            place = len(self.done)
            paragraphs = list(self._cells(name, row))
            self.wrapped(paragraphs[0], column + 5, f"{name:{column}}{works:5}")
            for paragraph in paragraphs[1:]:
                self.wrapped(paragraph, column + 5, " " * (column + 5))
            # Painted after the wrapping, which would count the escapes as columns.
            line = self.done[place]
            painted = self._paint(works, _GREEN if row["works"] else _RED)
            self.done[place] = line[:column] + painted + line[column + len(works) :]

    def _cells(self, name: str, row: dict[str, Any]) -> Iterator[str]:
        """Yield the paragraphs of a row; a reason that was given before is not told again."""
        if row["works"]:
            yield ", ".join(filter(None, (row.get("purpose", ""), row["detail"] if "purpose" in row else "")))
            return
        reason = row["reason"]
        for said, before in self._said.items():
            if reason.endswith(said):
                yield f"{reason[: -len(said)]}as {before}"
                return
        self._said[reason] = name
        yield f"{reason} ({row['detail']})" if row["detail"] and "purpose" in row else reason
        if row["remedy"]:
            yield f"remedy: {row['remedy']}"

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._colour else text
