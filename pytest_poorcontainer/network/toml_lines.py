"""On which line of a TOML file a key stands: parsers tell where syntax is wrong, but not where a value was."""

from __future__ import annotations

import re

__all__ = ["line_of", "lines_of_keys"]

_HEADER = re.compile(r"\s*\[(\[)?\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")

Path = tuple["str | int", ...]


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def lines_of_keys(text: str) -> dict[Path, int]:
    """Return the line, from 1, of each table and key as far as they stand at the beginning of one.

    Elements of arrays of tables are numbered from 0. Keys inside of inline tables are not in it.
    """
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        key = None if header else _KEY.match(line)
        if header:
            table = _resolved(_parts(header[2]), counts, new=bool(header[1]))
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif key:
            found.setdefault((*table, *_parts(key[1])), number)
    return found


def _resolved(parts: list[str], counts: dict[Path, int], *, new: bool) -> Path:
    """Return the path of a header, with the number of the element in each array of tables on the way."""
    path: Path = ()
    for place, part in enumerate(parts):
        path = (*path, part)
        if new and place == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of a key, or of the nearest thing around it that has one; 1 if nothing has."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1
