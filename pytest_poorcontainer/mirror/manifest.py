"""The manifest of a mirror: all of its names, sizes and times in one file, for mirrors that copy from it.

A mirror with ``manifest = true`` writes ``.poor-mirror.manifest`` at its top after each change. Who copies from it asks
for that one file instead of listing each directory, and when it is unchanged there is nothing to do at all. Its names
are as little to be trusted as a listing's, and pass the same checks.
"""

from __future__ import annotations

import os
import posixpath
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, LINK, Entry, Listing
from pytest_poorcontainer.mirror.errors import SourceError, Unreachable
from pytest_poorcontainer.mirror.rules import OURS

if TYPE_CHECKING:
    from pytest_poorcontainer.mirror.home import Home
    from pytest_poorcontainer.mirror.planner import Planner
    from pytest_poorcontainer.mirror.sources.base import Source

__all__ = ["NAME", "Found", "ask", "parse", "present", "survey", "write"]

NAME = f"{OURS}.manifest"
_MAGIC = b"poor-mirror manifest 1\n"
_END = b".\n"
_LARGEST = 1 << 28
_LARGEST_TEXT = 1 << 29
_FIELDS = 4
_DIGITS = 15
_LATEST = 253_402_300_800  # the year 10000, of which no calendar knows


@dataclass
class Found:
    """The source's manifest: ``unchanged`` when it is the one of the last complete run."""

    validator: str
    unchanged: bool
    listings: dict[str, Listing] | None = None


def ask(source: Source, saved: dict[str, Any], fingerprint: str) -> Found | None:
    """Ask the source for its manifest; None when it has none, or none that can be read."""
    complete = saved.get("complete", {})
    known = complete.get("validator", "") if complete.get("fingerprint") == fingerprint else ""
    try:
        data, validator = source.read(NAME, _LARGEST, known)
    except Unreachable:
        raise
    except (SourceError, OSError):
        return None
    if data is None:
        return Found(validator or known, unchanged=True)
    listings = parse(data)
    return None if listings is None else Found(validator, unchanged=False, listings=listings)


def parse(data: bytes) -> dict[str, Listing] | None:
    """Return the listings by directory; None for what is no whole manifest."""
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(data, _LARGEST_TEXT)
    except zlib.error:
        return None
    if not unpacking.eof or not text.startswith(_MAGIC) or not text.endswith(b"\n" + _END):
        return None
    listings = {"": Listing(dialect="manifest")}
    for line in text[len(_MAGIC) : -len(_END)].splitlines():
        fields = line.split(b" ")
        if len(fields) != _FIELDS:
            return None
        kind, size, mtime = fields[0].decode("ascii", "replace"), fields[1], fields[2]
        path, _, target = (os.fsdecode(unquote_to_bytes(part)) for part in fields[3].partition(b">"))
        if kind[:1] not in {FILE, DIRECTORY, LINK} or not (
            size.isdigit() and mtime.isdigit() and max(len(size), len(mtime)) <= _DIGITS and int(mtime) < _LATEST
        ):
            return None
        directory, name = posixpath.split(path)
        if directory not in listings:
            return None
        if kind == DIRECTORY:
            listings[path] = Listing(dialect="manifest")
        whole = int(size) if kind[:1] == FILE else None
        listings[directory].add(
            Entry(name, kind[:1], whole, float(mtime), target=target if kind == LINK else "", executable=kind == "fx")
        )
    return listings


def survey(listings: dict[str, Listing], planner: Planner) -> None:
    """Have the planner compare all of it."""
    planner.plan.facts["dialect"] = "manifest"
    paths = [""]
    while paths:
        path = paths.pop()
        listing = listings.get(path)
        if listing is None:
            planner.failed(path, "the manifest does not have it")
        else:
            paths += planner.found(path, listing)


def present(home: Home) -> bool:
    """Whether the mirror has a manifest."""
    return home.tree.look(NAME) is not None


def write(home: Home) -> None:
    """Write the manifest of what is published now."""
    lines = [_MAGIC]
    _lines(home, "", lines)
    lines.append(_END)
    name = "manifest.new"
    fd = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=home.temporary
    )
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(zlib.compress(b"".join(lines), 1))
        os.fchmod(file.fileno(), 0o644)
    home.tree.rename(home.temporary, name, NAME)


def _lines(home: Home, directory: str, lines: list[bytes]) -> None:
    """Append the lines of a directory: each one before what is in it."""
    below = []
    for name, local in sorted(home.tree.scan(directory).items()):
        path = f"{directory}/{name}" if directory else name
        if path in {OURS, NAME} or local.kind == "?":
            continue
        target = ">" + quote(os.fsencode(home.tree.target(path))) if local.kind == LINK else ""
        kind = "fx" if local.executable else local.kind
        lines.append(f"{kind} {local.size} {int(local.mtime)} {quote(os.fsencode(path))}{target}\n".encode())
        if local.kind == DIRECTORY:
            below.append(path)
    for path in below:
        _lines(home, path, lines)
