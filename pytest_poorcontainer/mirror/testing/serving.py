"""What the test servers share: a directory to serve, and the bytes of a file as the faults let them come."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_poorcontainer.mirror.testing.faults import Faults

__all__ = ["Item", "Served"]

_CHUNK = 1 << 16
_STALL = 600.0


class Item(NamedTuple):
    """One line of a listing: ``kind`` is "f", "d" or "l"."""

    name: str
    kind: str
    size: int
    mtime: float
    target: str = ""


class Served:
    """A directory, and what is to be wrong with it. ``ending`` is set when the server is to end."""

    def __init__(self, root: Path, faults: Faults) -> None:
        """Serve what is below ``root``."""
        self.root = root
        self.faults = faults
        self.ending = threading.Event()

    def items(self, path: str, *, links: bool) -> list[Item]:
        """Return what is in a directory (relative, "" for the top); without ``links`` as what they lead to."""
        if self.faults.find("empty", path):
            return []
        if self.faults.find("hang", path):
            self.ending.wait(_STALL)
            raise ConnectionError("hung, as a fault says")
        found = []
        for entry in sorted(os.scandir(self.root / path), key=lambda one: one.name):
            below = f"{path}/{entry.name}" if path else entry.name
            if links and entry.is_symlink():
                found.append(Item(entry.name, "l", 0, entry.stat(follow_symlinks=False).st_mtime, os.readlink(entry)))  # noqa: PTH115 - as it is
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue  # a dangling link
            lie = self.faults.find("lie", below)
            size = int(lie["size"]) if lie else stat.st_size
            found.append(Item(entry.name, "d" if entry.is_dir() else "f", size, stat.st_mtime))
        return found + self._more(path)

    def _more(self, path: str) -> list[Item]:
        fault = self.faults.find("entries", path)
        items = []
        for given in fault["names"] if fault else []:
            name, kind, target = given if isinstance(given, list) else (given, "f", "")
            items.append(Item(name, kind, 3, time.time() - 60, target))
        return items

    def content(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield a file from ``start`` on, until a fault ends it: "cut" by :class:`ConnectionError`."""
        cut, truncate, stall = (self.faults.find(kind, path) for kind in ("cut", "truncate", "stall"))
        slow = self.faults.find("slow", path)
        limits = [int(fault.get("bytes", 0)) for fault in (cut, truncate, stall) if fault]
        left = min(limits) - start if limits else None
        with (self.root / path).open("rb") as file:
            file.seek(start)
            while left is None or left > 0:
                chunk = file.read(_CHUNK if left is None else min(_CHUNK, left))
                if not chunk:
                    return
                left = left if left is None else left - len(chunk)
                yield chunk
                if slow:
                    self.ending.wait(len(chunk) / float(slow["rate"]))
        if stall:
            self.ending.wait(_STALL)
        if cut or stall:
            raise ConnectionError("cut, as a fault says")
