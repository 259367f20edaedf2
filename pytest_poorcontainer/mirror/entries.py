"""What a listing says about one name, and what may be a name at all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["COMPLETE", "DIRECTORY", "FILE", "INCOMPLETE", "LINK", "UNRECOGNISED", "Entry", "Listing", "why_refused"]

FILE, DIRECTORY, LINK = "f", "d", "l"
COMPLETE, INCOMPLETE, UNRECOGNISED = "complete", "incomplete", "unrecognised"
_LONGEST = 255  # bytes, NAME_MAX of Linux' file systems


class Entry(NamedTuple):
    """One line of a listing. Names are as :func:`os.fsdecode` makes them, so that any byte survives.

    ``size`` is in bytes, ``slack`` how far a rounded size may be off; ``mtime`` in seconds since 1970, with
    ``precision`` in seconds: the true time lies in [mtime, mtime + precision). None means that the listing does not
    say. ``local`` marks a time of the server's own zone, ``vague`` a year that was guessed.
    """

    name: str
    kind: str = FILE
    size: int | None = None
    mtime: float | None = None
    precision: float = 1.0
    slack: int = 0
    target: str = ""
    unique: str = ""
    local: bool = False
    vague: bool = False
    executable: bool = False


@dataclass
class Listing:
    """A parsed directory: ``state`` decides whether what it does not name may be deleted (only if COMPLETE)."""

    entries: list[Entry] = field(default_factory=list)
    state: str = COMPLETE
    dialect: str = ""
    notes: list[str] = field(default_factory=list)

    def doubt(self, note: str) -> None:
        """Say why this is not all that there is."""
        if self.state == COMPLETE:
            self.state = INCOMPLETE
        self.notes.append(note)

    def add(self, entry: Entry) -> None:
        """Take an entry over if its name may be one; else the listing is incomplete."""
        reason = why_refused(entry.name)
        if reason:
            self.doubt(f"refused the name {entry.name!a}: {reason}")
        else:
            self.entries.append(entry)


def why_refused(name: str) -> str:
    """Return why this is no name for us; "" if it is one.

    The name comes from a stranger and is to become one component of a path below our destination: nothing that leaves
    it, and nothing that breaks a line of a log or of a protocol in two.
    """
    if name in {"", ".", ".."}:
        return "it leads to no file of that directory"
    if "/" in name:
        return "it has a slash"
    if "\0" in name or "\n" in name or "\r" in name:
        return "it has a NUL or a line break"
    try:
        if len(os.fsencode(name)) > _LONGEST:
            return f"it is longer than {_LONGEST} bytes"
    except UnicodeEncodeError:
        return "it cannot be a file name"
    return ""
