"""The destination: every access to it goes through a descriptor of its top, and follows no symbolic link.

Names in it were chosen by strangers, and somebody else may be at work in it. openat2(2) with RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS refuses in the kernel what leads out; where a kernel has no openat2 (before 5.6) or a sandbox
refuses it, each component is opened by itself with O_NOFOLLOW.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.mirror.entries import DIRECTORY, FILE, LINK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["Local", "Tree", "split"]

_OPENAT2 = 437  # the same number on every architecture: it is one of the calls added after they were unified
_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS = 0x08, 0x04, 0x02
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 128  # descriptors of directories kept open

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Local(NamedTuple):
    """What lies in the destination under one name; ``kind`` is "?" for a device and the like."""

    kind: str
    size: int
    mtime: float
    executable: bool = False


def split(path: str) -> tuple[str, str]:
    """Return (directory, name) of a relative path; the directory of what is at the top is ""."""
    directory, _, name = path.rpartition("/")
    return directory, name


class Tree:
    """A directory tree that is changed beneath its descriptor. Paths are relative, without a leading slash."""

    def __init__(self, path: str) -> None:
        """Open the top; raises OSError."""
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[str, int] = OrderedDict()
        self._openat2 = True

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self._forget("")
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def directory(self, path: str) -> int:
        """Return a descriptor of a directory; it stays this object's. Raises OSError (ELOOP or ENOTDIR for a link)."""
        if not path:
            return self.fd
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        fd = self._resolve(path)
        self._open[path] = fd
        if len(self._open) > _KEPT:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _resolve(self, path: str) -> int:
        if self._openat2 and ".." not in path:  # openat2 would let a/.. pass, which stays beneath
            how = _How(_OPEN, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
            fd = int(_libc.syscall(_OPENAT2, self.fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            if number not in {errno.ENOSYS, errno.EPERM, errno.EAGAIN}:
                raise OSError(number, os.strerror(number), path)
            self._openat2 = number == errno.EAGAIN  # a rename raced with us: this once by hand
        return self._by_hand(path)

    def _by_hand(self, path: str) -> int:
        fd = os.dup(self.fd)
        for name in path.split("/"):
            if name in {"", ".", ".."}:
                os.close(fd)
                raise OSError(errno.EXDEV, "the path leaves its tree", path)
            try:
                below = os.open(name, _OPEN, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _forget(self, path: str) -> None:
        """Close the descriptors of a directory and of all below it ("" for all)."""
        for known in [one for one in self._open if not path or one == path or one.startswith(path + "/")]:
            os.close(self._open.pop(known))

    def make(self, path: str) -> int:
        """Make a directory with its parents, where they are missing; return a descriptor as :meth:`directory` does."""
        if not path or path in self._open:
            return self.directory(path)
        parent, name = split(path)
        try:
            os.mkdir(name, 0o755, dir_fd=self.make(parent))
        except FileExistsError:
            return self.directory(path)
        fd = self.directory(path)
        os.fchmod(fd, 0o755)
        return fd

    def scan(self, path: str) -> dict[str, Local]:
        """Return what is in a directory, by name. A directory that is not there, or is none, is empty."""
        try:
            fd = self.directory(path)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return {}
            raise
        found = {}
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found[entry.name] = _local(status)
        return found

    def look(self, path: str) -> Local | None:
        """Return what lies at a path; None if nothing does."""
        directory, name = split(path)
        try:
            return _local(os.stat(name, dir_fd=self.directory(directory), follow_symlinks=False))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise

    def target(self, path: str) -> str:
        """Return where a symbolic link points."""
        directory, name = split(path)
        return os.readlink(name, dir_fd=self.directory(directory))

    def walk(self, path: str = "") -> Iterator[tuple[str, Local]]:
        """Yield all below a directory with its path, what is in a directory before the directory itself."""
        for name, local in sorted(self.scan(path).items()):
            below = f"{path}/{name}" if path else name
            if local.kind == DIRECTORY:
                yield from self.walk(below)
            yield below, local

    def open(self, path: str) -> int:
        """Open a regular file for reading; return the descriptor, which is the caller's."""
        directory, name = split(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(name, flags, dir_fd=self.directory(directory))

    def remove(self, path: str) -> bool:
        """Remove a file, a link or an empty directory; whether it is gone (a directory that is not empty stays)."""
        directory, name = split(path)
        try:
            fd = self.directory(directory)
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                self._forget(path)
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return False
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
        return True

    def rename(self, fd: int, name: str, path: str) -> None:
        """Move ``name`` in the directory ``fd`` to a path, over what file or link lies there; parents are made."""
        directory, last = split(path)
        try:
            above = self.directory(directory)
        except FileNotFoundError:
            above = self.make(directory)
        os.rename(name, last, src_dir_fd=fd, dst_dir_fd=above)

    def displace(self, path: str, fd: int, name: str) -> None:
        """Move what lies at a path out of the way, into the directory ``fd``."""
        directory, last = split(path)
        self._forget(path)
        os.rename(last, name, src_dir_fd=self.directory(directory), dst_dir_fd=fd)


def _local(found: os.stat_result) -> Local:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return Local(FILE, found.st_size, found.st_mtime, bool(mode & 0o100))
    kind = DIRECTORY if stat.S_ISDIR(mode) else LINK if stat.S_ISLNK(mode) else "?"
    return Local(kind, 0, found.st_mtime)
