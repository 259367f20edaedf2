"""What a service has printed: a file that it appends to, read here at will.

No pipe, so nothing must be read for the service to go on, nothing is lost when pytest dies, and a service that is kept
goes on logging. Positions count bytes since the first start; they are never used twice, also when the front of the
file was given back to the file system, or when the service itself has emptied it (``> /dev/stderr`` in a shell does).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.container.log_file import File, drop_front, open_unnamed
from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KEPT", "Archive", "Log", "LogText", "decode", "safe_tail"]

KEPT = 16 << 20  # bytes of the end that are kept
_SLACK = 4 << 20  # beyond which it is worth while to give something back
_ARCHIVED = 256 << 20  # bytes of all ended services of a container
_BEHIND = 256 << 20  # what somebody who searches the log may be behind
_CHUNK = 1 << 20
_TAIL = 256 << 10
_LINE = 1000  # characters of a line that are shown


class LogText(str):
    """Text of a log that knows where it comes from: so a match in it can be the ``since`` of the next search."""

    __slots__ = ("raw", "start")

    raw: bytes
    start: int

    @classmethod
    def of(cls, raw: bytes, start: int) -> LogText:
        """Decode what stands at position ``start``."""
        text = cls(decode(raw))
        text.raw, text.start = raw, start
        return text

    def position(self, index: int) -> int:
        """Return the log's position of a character."""
        lines = self[:index].count("\n")
        at = 0
        for _ in range(lines):
            at = self.raw.index(b"\n", at) + 1
        rest = index - (self.rfind("\n", 0, index) + 1)
        tail = self.raw[at:]
        # Byte by byte only where the line is short of being clean UTF-8: then characters tell nothing of lengths.
        length = len(self[index - rest : index].encode())
        if decode(tail[:length]) != self[index - rest : index]:
            length = next(n for n in range(len(tail) + 1) if len(decode(tail[:n])) >= rest)
        return self.start + at + length


def decode(data: bytes) -> str:
    """Return bytes as text: UTF-8, what is none of it as U+FFFD."""
    return data.decode("utf-8", "replace")


def safe_tail(text: str, lines: int) -> str:
    """Return the last lines, fit for a terminal: no control characters, no line without an end."""
    shown = []
    for line in text.split("\n")[-(lines + 1) :]:
        cut = line.rstrip("\r")
        printable = "".join(c if c.isprintable() or c == "\t" else _escape(c) for c in cut[:_LINE])
        shown.append(printable if len(cut) <= _LINE else f"{printable}... ({len(cut) - _LINE} characters more)")
    if shown and not shown[-1]:
        shown.pop()
    return "\n".join(shown[-lines:])


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Archive:
    """Where the logs of ended services go: one file for all of a container, so that each gives its descriptor back."""

    def __init__(self, directories: Sequence[os.PathLike[str] | str]) -> None:
        """``directories``: see ``open_unnamed``."""
        self.directories = directories
        self._file: File | None = None
        self._lock = threading.Lock()
        self.base = 0

    def add(self, fd: int, start: int, end: int) -> tuple[File, int]:
        """Copy a part of a file here; return our file and where the part lies. Raises OSError (ENOSPC)."""
        with self._lock:
            file = self._file = self._file or open_unnamed(self.directories)
            offset = os.fstat(file.fd).st_size
            at = start
            while at < end:
                data = os.pread(fd, min(_CHUNK, end - at), at)
                if not data:
                    break
                at += len(data)
                while data:
                    data = data[os.write(file.fd, data) :]
            if offset + at - start - self.base > _ARCHIVED + _SLACK:
                self.base = offset + at - start - _ARCHIVED
                drop_front(file.fd, self.base)
            return file, offset


class _Part(NamedTuple):
    """The log's bytes from ``start`` to ``end`` lie in a file from ``offset`` on."""

    file: File
    offset: int
    start: int
    end: int


class Log:
    """The log of one service, of all its runs. Safe to use from several threads."""

    def __init__(self, archive: Archive) -> None:
        """``archive`` takes the runs that have ended."""
        self._archive = archive
        self._parts: list[_Part] = []
        self._live: File | None = None
        self._shift = 0  # position minus offset, in the live file
        self._size = 0  # of the live file when it was looked at last
        self._lock = threading.RLock()
        self._readers: dict[int, int] = {}
        self._starts: set[int] = set()  # of runs
        self.base = 0
        self.run_start = 0

    def begin(self, mark: str = "") -> int:
        """Open the file of a new run and return its descriptor, which stays ours; ``mark`` becomes its first line."""
        with self._lock:
            self.finish()
            self._shift, self._size = self.end(), 0
            self._starts.add(self._shift)
            self._live = open_unnamed(self._archive.directories)
            if mark:
                # Not into the middle of a line that the last run has left unfinished.
                unfinished = self._shift > self.base and self.read(self._shift - 1, self._shift) != b"\n"
                os.write(self._live.fd, ("\n" * unfinished + mark + "\n").encode())
            self.run_start = self.end()
            return self._live.fd

    def finish(self, *, copy: bool = True) -> None:
        """Put the run away; its text stays readable. ``copy``: give its descriptor back. Idempotent."""
        with self._lock:
            live, end = self._live, self.end()
            if live is None:
                return
            self.trim()
            start = max(self.base, self._shift)
            offset, file = start - self._shift, live
            # A full disk is no reason to lose the log: then the file itself is kept.
            with contextlib.suppress(OSError, LabError):
                if copy and end > start:
                    file, offset = self._archive.add(live.fd, offset, end - self._shift)
            if end > start:
                self._parts.append(_Part(file, offset, start, end))
            self._live = None
            if file is not live or end <= start:
                live.close()

    @property
    def fd(self) -> int:
        """The live file's descriptor, to watch it; -1 when none is open."""
        with self._lock:
            return -1 if self._live is None else self._live.fd

    def end(self) -> int:
        """Return the position of what will be printed next."""
        with self._lock:
            if self._live is None:
                return self._parts[-1].end if self._parts else self._shift + self._size
            size = os.fstat(self._live.fd).st_size
            if size < self._size:
                self._shift += self._size  # somebody has emptied it: what comes now has positions of its own
                self.base = max(self.base, self._shift)
            self._size = size
            return self._shift + size

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes between two positions, as far as they are still there."""
        with self._lock:
            pieces = []
            parts = list(self._parts)
            if self._live is not None:
                parts.append(_Part(self._live, 0, self._shift, self._shift + self._size))
            for part in parts:
                low = max(start, part.start, self.base)
                if part.file is not self._live:
                    low = max(low, part.start + self._archive.base - part.offset)
                at, high = part.offset + low - part.start, min(end, part.end) - low
                if high > 0:
                    pieces.append(_pread(part.file.fd, high, at))
            return b"".join(pieces)

    def text(self) -> str:
        """Return all that is kept; a first line tells what is not."""
        with self._lock:
            end = self.end()
            self.trim()
            start = max(self.base, end - KEPT)
            data = self.read(start, end)
            whole = start == self._shift or start in self._starts
        if start == 0:
            return decode(data)
        cut = 0 if whole else data.find(b"\n") + 1  # to the first line that is whole
        return f"[... {start + cut} bytes before this are not kept]\n{decode(data[cut:])}"

    def between(self, start: int, end: int | None = None) -> str:
        """Return the text between two positions, at most the last KEPT bytes of it."""
        with self._lock:
            now = self.end()
            end = now if end is None else min(end, now)
            return decode(self.read(max(start, end - KEPT), end)) if end > start else ""

    def copy(self, fd: int, most: int) -> int:
        """Write the last ``most`` bytes to a descriptor, piece by piece; return how many there were."""
        with self._lock:
            end = self.end()
            at, done = max(self.base, end - most), 0
        while at < end:
            data = self.read(at, min(end, at + _CHUNK))
            at += _CHUNK
            done += len(data)
            while data:
                data = data[os.write(fd, data) :]
        return done

    def tail(self, lines: int, since: int = 0) -> str:
        """Return the last lines after a position as :func:`safe_tail` does."""
        with self._lock:
            end = self.end()
            start = max(self.base, end - _TAIL, since)
            text = decode(self.read(start, end))
        return safe_tail(text, lines) if lines > 0 else ""

    def trim(self) -> None:
        """Give back what is no longer kept, but what somebody is still to search."""
        with self._lock:
            if self._live is None:
                return
            end = self.end()
            wanted = min([end - KEPT, *(max(at, end - _BEHIND) for at in self._readers.values())])
            if wanted - max(self.base, self._shift) < _SLACK:
                return
            self.base = wanted
            drop_front(self._live.fd, wanted - self._shift)

    def reading(self, reader: int, position: int | None) -> None:
        """Note where somebody who searches has come to; None when it is over."""
        with self._lock:
            if position is None:
                self._readers.pop(reader, None)
            else:
                self._readers[reader] = position


def _pread(fd: int, length: int, offset: int) -> bytes:
    pieces = []
    while length > 0:
        data = os.pread(fd, min(length, _CHUNK), offset)
        if not data:
            break
        pieces.append(data)
        length -= len(data)
        offset += len(data)
    return b"".join(pieces)
