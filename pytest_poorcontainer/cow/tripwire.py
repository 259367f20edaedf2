"""Damage to a lower, found by ctimes: nothing can change an inode without setting its ctime, which nobody can set."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow.layer import join
from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.layer import Layer

__all__ = ["MANY", "Damaged", "Tripwire", "counted", "now_on"]

MANY = 5000
"""Up to so many inodes are looked at after each test."""
_COARSE = 5  # CLOCK_REALTIME_COARSE of clock_gettime(2): the clock of ctimes where nothing else is known
_PATIENCE = 0.1  # seconds; a tick of the slowest clock is a tenth of that
_NO_FILE_THERE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSPC, errno.EDQUOT, errno.EINVAL}
)

allowed: dict[tuple[int, int], tuple[int, int]] = {}
"""Device and inode of what :meth:`Tree.commit` has changed on purpose: the ctime that it left, and the one that counts
instead: that from before, of a directory in which something was changed, since others may have changed it as well."""


def counted(info: os.stat_result) -> int:
    """Return the ctime of the last change that was none of our commits; 0 for what a commit has made."""
    left, before = allowed.get((info.st_dev, info.st_ino), (None, 0))
    return before if left == info.st_ctime_ns else info.st_ctime_ns


class Damaged(PoorContainerError, AssertionError):
    """Something in the lower of a tree was changed. ``paths`` are absolute."""

    def __init__(self, lower: str, paths: list[str], backend: str) -> None:
        """Say which paths."""
        self.lower = lower
        self.paths = paths
        self.backend = backend
        super().__init__(lower, paths, backend)

    def __str__(self) -> str:
        """Return what was changed, and what that can mean."""
        shown = "".join(f"\n  {path.encode('utf-8', 'backslashreplace').decode()}" for path in self.paths[:20])
        more = f"\n  ... and {len(self.paths) - 20} more" if len(self.paths) > 20 else ""  # noqa: PLR2004
        return (
            f"the original {self.lower} of a copy-on-write tree (backend {self.backend}) was changed:{shown}{more}\n"
            "Either a program went past the tree (docs/copy-on-write.md tells which backend protects from what), or "
            "somebody else changed it meanwhile; tripwire=False does without this look."
        )


def now_on(lower: Layer) -> int:
    """Return a ctime of the lower's file system such that all changes before have an earlier one, and all after do not.

    A file without a name tells it. Its first ctime may be that of the tick in which the lower was made; so it is
    changed until it has a later one: at once since Linux 6.13, where a ctime that was looked at is never given again
    (multigrain timestamps), else after a tick of at most 10 ms.
    """
    try:
        with lower.place("") as place:
            fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_FILE_THERE:
            raise
        return _by_clock()
    try:
        first = os.fstat(fd).st_ctime_ns
        end = time.monotonic() + _PATIENCE
        while True:
            os.fchmod(fd, 0o600)
            later = os.fstat(fd).st_ctime_ns
            if later > first or time.monotonic() > end:
                return later
            time.sleep(0.0005)
    finally:
        os.close(fd)


def _by_clock() -> int:
    """Return the same by the machine's clock, for a directory in which we cannot make a file."""
    now = time.time_ns()
    end = time.monotonic() + _PATIENCE
    while time.clock_gettime_ns(_COARSE) < now and time.monotonic() < end:
        time.sleep(0.0005)
    return now


class Tripwire:
    """Looks whether a lower was changed since it was set."""

    def __init__(self, lower: Layer, name: str, since: int) -> None:
        """Watch the directory ``lower``, which people know as ``name``."""
        self._lower = lower
        self.name = name
        self.since = since

    def look(self, most: int | None = MANY) -> list[str] | None:
        """Return what was changed, as absolute paths; None when there are more than ``most`` inodes to look at."""
        device = self._lower.lstat("").st_dev
        found: list[str] = []
        seen = 0
        self._one("", self._lower.lstat(""), found)
        pending = [""]
        while pending:
            directory = pending.pop()
            try:
                entries = self._lower.entries(directory)
            except PermissionError:
                continue  # we cannot look, and what runs with our rights could not write there
            except FileNotFoundError:
                continue  # its parent's ctime tells that it is gone
            seen += len(entries)
            if most is not None and seen > most:
                return None
            for name, info in entries:
                path = join(directory, name)
                self._one(path, info, found)
                if stat.S_ISDIR(info.st_mode) and info.st_dev == device:  # what is mounted there is not in the tree
                    pending.append(path)
        return found

    def _one(self, path: str, info: os.stat_result, found: list[str]) -> None:
        if counted(info) >= self.since:
            found.append(join(self.name.rstrip("/"), path) if path else self.name)
