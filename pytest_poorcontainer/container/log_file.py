"""Files without a name, for logs: made, watched and cut at the front."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Changes", "File", "drop_front", "open_unnamed", "watching"]

_PUNCH = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_MODIFY = 0x02  # IN_MODIFY, inotify(7)
_MODE = 0o666
_NAMELESS = "poor-container-log"
_ENOUGH = 65536


class File:
    """A descriptor that is closed, quietly, when nobody refers to it any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        """Take the descriptor over."""
        self.fd = fd

    def close(self) -> None:
        """Close it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close it."""
        self.close()


def open_unnamed(directories: Iterable[os.PathLike[str] | str]) -> File:
    """Return a new file without a name in the first directory that takes one, else in memory; for appending.

    Everybody may open it who comes to it (through /proc/self/fd: nobody else can), since a daemon that has changed its
    user opens /dev/stdout anew. Raises :class:`LabError` when no descriptor is left.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    for directory in directories:
        try:
            fd = os.open(directory, flags | os.O_TMPFILE, _MODE)
        except OSError as error:
            # EOPNOTSUPP, EISDIR: a file system without O_TMPFILE (open(2)); EROFS, EACCES, ENOENT, ENOSPC: the next.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise _no_descriptor(error) from error
            continue
        file = File(fd)
        os.fchmod(fd, _MODE)
        return file
    try:
        file = File(os.memfd_create(_NAMELESS, os.MFD_CLOEXEC))
    except OSError as error:
        raise _no_descriptor(error) from error
    # F_SETFL is all that is needed: O_APPEND is a status flag (fcntl(2)).
    import fcntl  # noqa: PLC0415 - rarely

    fcntl.fcntl(file.fd, fcntl.F_SETFL, os.O_APPEND)
    os.fchmod(file.fd, _MODE)
    return file


def _no_descriptor(error: OSError) -> LabError:
    remedy = "raise the limit of open files (ulimit -n), or close what is no longer needed"
    return LabError("make the log of", "a service", error.errno or 0, remedy)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def drop_front(fd: int, end: int) -> None:
    """Give the file system back what lies before ``end``; the file's size and the rest of it stay (fallocate(2)).

    Does nothing on a file system that cannot.
    """
    if end > 0:
        _libc().fallocate(fd, _PUNCH, ctypes.c_int64(0), ctypes.c_int64(end))


class Changes:
    """Tells when files are written to (inotify(7)): to poll on, nothing is asked at intervals.

    ``fd`` is -1 when this user has no inotify instance left; then who waits has to look from time to time.
    """

    def __init__(self) -> None:
        """Open an inotify instance."""
        self._file = File(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    @property
    def fd(self) -> int:
        """The descriptor to poll on."""
        return self._file.fd

    def add(self, fd: int) -> int:
        """Watch the file behind a descriptor, which needs no name for it; return the watch's number, -1 on failure."""
        if self.fd < 0:
            return -1
        return int(_libc().inotify_add_watch(self.fd, f"/proc/self/fd/{fd}".encode(), _MODIFY))

    def remove(self, watch: int) -> None:
        """Stop watching. A number that is not watched is nothing to complain about."""
        _libc().inotify_rm_watch(self.fd, watch)

    def take(self) -> None:
        """Forget what was told so far."""
        with contextlib.suppress(BlockingIOError):
            while self.fd >= 0 and len(os.read(self.fd, _ENOUGH)) > _ENOUGH // 2:
                pass


_idle: list[Changes] = []
_MOST_IDLE = 4


@contextlib.contextmanager
def watching(fd: int) -> Iterator[Changes]:
    """Watch the file behind a descriptor (none when it is negative) for the time of a block.

    The instances are used again, for closing one waits for a grace period of the kernel's: 8 ms.
    """
    try:
        changes = _idle.pop()
    except IndexError:
        changes = Changes()
    watch = changes.add(fd) if fd >= 0 else -1
    try:
        yield changes
    finally:
        if watch >= 0:
            changes.remove(watch)
            changes.take()  # also the word that it is no longer watched
        if changes.fd >= 0 and len(_idle) < _MOST_IDLE:
            _idle.append(changes)


# A forked child would read our events: it has instances of its own.
os.register_at_fork(after_in_child=_idle.clear)
