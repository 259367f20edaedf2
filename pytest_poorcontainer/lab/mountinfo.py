"""The table of a mount namespace as the kernel shows it: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Row", "parse"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Row(NamedTuple):
    """A mount: its number, the file system's device ("MAJOR:MINOR"), which directory of that is mounted, and where.

    ``options`` are the mount's, ``file_system`` the file system's own, both as they stand there ("rw,nosuid").
    """

    number: int
    device: str
    root: str
    target: str
    options: str
    kind: str
    source: str
    file_system: str


def parse(text: str) -> list[Row]:
    """Return the rows of a table, in its order: a mount that covers another one comes after it."""
    rows = []
    for line in text.splitlines():
        # Between the two parts stand optional fields, of which there may be none.
        mount, _, file_system = line.partition(" - ")
        number, _, device, root, target, options = mount.split(" ")[:6]
        kind, source, own = file_system.split(" ", 2)
        rows.append(
            Row(int(number), device, _unescaped(root), _unescaped(target), options, kind, _unescaped(source), own)
        )
    return rows


def _unescaped(field: str) -> str:
    """Return a path without the escapes for space, tab, newline and backslash."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)
