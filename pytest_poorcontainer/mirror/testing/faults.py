"""What a test server is told to do wrong, in a file that it looks at before each request."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "Fault", "Faults", "write"]

KINDS = {
    "truncate": "the file ends after `bytes`, although its size was told",
    "cut": "the connection ends after `bytes` of the file",
    "stall": "nothing more comes after `bytes`",
    "error": "the answer is an error: `status` for HTTP, `code` for FTP",
    "vanish": "listed, but not there",
    "lie": "the listing says that it has `size` bytes",
    "login": "every page is a login page, with status 200",
    "empty": "the directory is listed as empty",
    "entries": "the listing has these `names` more: a name, or [name, kind, target]",
    "page": "the listing is this `text`",
    "hang": "the listing of the directory never comes",
    "slow": "`rate` bytes per second",
    "busy": "no more than `most` connections; with `code` 530 in FTP, that is said after the password",
    "redirect": "HTTP's answer sends elsewhere: `to`, a path or a URL",
    "bare": "neither Last-Modified nor ETag",
    "early": "FTP's 226 comes in one packet with 150, before the bytes",
    "drop": "the connection is closed after each answer (FTP: each transfer), though it was promised to stay",
}
"""The kinds of fault, and what they do."""

Fault = dict[str, Any]


def write(path: Path, faults: list[Fault]) -> None:
    """Write the file that a server looks at; raises ValueError for a kind that there is none of."""
    for fault in faults:
        if fault["kind"] not in KINDS:
            raise ValueError(f'there is no fault "{fault["kind"]}"; there are {", ".join(sorted(KINDS))}')
    new = path.with_suffix(".new")
    new.write_text(json.dumps(faults))
    new.replace(path)


class Faults:
    """The faults that are in force. ``path`` in a fault is a file or directory, absent for all; ``times`` how often."""

    def __init__(self, path: Path | None) -> None:
        """Look at this file; at none, nothing is ever wrong."""
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def find(self, kind: str, path: str) -> Fault | None:
        """Return the fault of this kind for a path ("" is the top), and count it; None when all is well."""
        if self._path is None:
            return None
        with self._lock:
            self._load(self._path)
            for fault in self._faults:
                if fault["kind"] == kind and fault.get("path") in {None, path}:
                    left = fault.get("times")
                    if left == 0:
                        continue
                    if left is not None:
                        fault["times"] = left - 1
                    return fault
        return None

    def _load(self, path: Path) -> None:
        try:
            found = path.stat()
        except FileNotFoundError:
            self._faults, self._stamp = [], (0, 0)
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._faults, self._stamp = json.loads(path.read_text()), stamp
