"""A directory tree that is known by a descriptor: paths below it may be longer than PATH_MAX."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Layer", "Place", "join"]

_CHUNK = 3000  # bytes that are surely resolved in one call (PATH_MAX is 4096)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2 = 437  # of every architecture (syscalls(2))
_RESOLVE_NO_SYMLINKS = 0x04
_NOT_THERE = frozenset({errno.ENOSYS, errno.EPERM})  # an old kernel, or a filter that does not know the call


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_how = _How(_DIRECTORY, 0, _RESOLVE_NO_SYMLINKS)


def join(path: str, name: str) -> str:
    """Return the path of a name in a directory; "" is the root of a layer."""
    return f"{path}/{name}" if path else name


def _open_directory(fd: int, path: str) -> int:
    """Return a descriptor of a directory below another one; no symbolic link is followed on the way to it."""
    name = os.fsencode(path)
    if len(name) > _CHUNK:
        return _step_by_step(fd, path)
    found: int = _libc.syscall(_OPENAT2, fd, name, ctypes.byref(_how), ctypes.sizeof(_how))
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number in _NOT_THERE:
        return _step_by_step(fd, path)
    if number == errno.ELOOP:
        number = errno.ENOTDIR
    raise OSError(number, os.strerror(number), path)


def _step_by_step(fd: int, path: str) -> int:
    """Do the same with a call for each part of the path."""
    at = os.dup(fd)
    try:
        for part in path.split("/"):
            below = os.open(part, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return at


class Place:
    """A path of a layer in a form that every system call takes, as long as the ``with`` block lasts."""

    __slots__ = ("_fds", "text")

    def __init__(self, text: str, fds: list[int]) -> None:
        """Own the descriptors that ``text`` goes through."""
        self.text = text
        self._fds = fds

    def __enter__(self) -> str:
        return self.text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._fds:
            os.close(self._fds.pop())


class Layer:
    """A directory, with methods that take paths below it ("a/b"; "" is itself). No method follows a symbolic link.

    All raise :class:`OSError`. The descriptor is closed with the layer.
    """

    __slots__ = ("_base", "fd")

    def __init__(self, fd: int) -> None:
        """Take over a descriptor of a directory."""
        self.fd = fd
        self._base = f"/proc/self/fd/{fd}"

    @classmethod
    def at(cls, path: str | bytes | os.PathLike[str], dir_fd: int | None = None) -> Self:
        """Open a directory. Raises OSError when it is none, or cannot be read."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd))

    def below(self, path: str) -> Layer:
        """Return a layer of its own for a directory of this one."""
        return Layer(self.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close the descriptor because nobody refers to it."""
        self.close()

    def place(self, path: str) -> Place:
        """Return the path for system calls: ``with layer.place(path) as place: os.chmod(place, ...)``.

        Raises NotADirectoryError when something above its last part is no directory, a symbolic link for example.
        """
        if not path:
            return Place(f"{self._base}/.", [])
        head, slash, name = path.rpartition("/")
        if not slash:
            return Place(f"{self._base}/{name}", [])
        fd = _open_directory(self.fd, head)
        return Place(f"/proc/self/fd/{fd}/{name}", [fd])

    def lstat(self, path: str) -> os.stat_result:
        """Return the status of what is there."""
        with self.place(path) as place:
            return os.lstat(place)

    def find(self, path: str) -> os.stat_result | None:
        """Return the same, None when there is nothing."""
        try:
            return self.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Return the names in a directory, sorted, each with its status; what vanishes meanwhile is left out."""
        found = []
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as listed:
                for entry in listed:
                    try:
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
        finally:
            os.close(fd)
        found.sort(key=lambda each: each[0])
        return found

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def walk(self, path: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """Yield everything below a directory, parents first, in order."""
        stack = [path]
        while stack:
            directory = stack.pop()
            below = []
            for name, info in self.entries(directory):
                yield join(directory, name), info
                if stat.S_ISDIR(info.st_mode):
                    below.append(join(directory, name))
            stack += reversed(below)

    def xattr(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute, None when there is none (or the file system knows none)."""
        with self.place(path) as place:
            try:
                return os.getxattr(place, name, follow_symlinks=False)
            except OSError:
                return None

    def readlink(self, path: str) -> str:
        """Return where a symbolic link leads."""
        with self.place(path) as place:
            return os.readlink(place)

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """Open a file and return its descriptor; a fifo does not block."""
        with self.place(path) as place:
            return os.open(place, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode)
