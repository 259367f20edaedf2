"""A directory that is filled and cannot be left: no name and no link in it leads to a file outside of it.

Parents are found by openat2(2) with RESOLVE_IN_ROOT: links mean what they mean to who has the directory as ``/``. The
last part of a name is never followed. So it holds whatever the names and links are that somebody else has thought of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Tree", "parts"]

_OPENAT2 = 437  # of every architecture (syscalls(2))
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CACHED = 64  # parents that stay open; archives go through a tree directory by directory
_MODE_OF_PARENTS = 0o755


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def parts(name: bytes) -> list[bytes]:
    """Return the components of a name below the root: a leading "/" and every "." are left out.

    Raises :class:`ValueError` for a name with ".." or a NUL byte in it: who writes that wants to get out.
    """
    if b"\0" in name:
        raise ValueError("it has a NUL byte in it")
    found = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in found:
        raise ValueError("it has '..' in it, which leads out")
    return found


class Tree:
    """Makes files below a directory. Names are bytes, relative to it, without ".." (:func:`parts`).

    What stands where something is to be made, is removed, but for directories that become directories. Permissions and
    times of directories are set by :meth:`finish`: until then they can be written to. With ``owners`` files belong to
    whom their maker says, else to this process's user. Every method raises :class:`OSError`.
    """

    def __init__(self, dir_fd: int, *, owners: bool | None = None) -> None:
        """Take a directory, whose descriptor stays the caller's; ``owners``: what root can do, if None."""
        self._root = dir_fd
        self._owners = os.geteuid() == 0 if owners is None else owners
        self._parents: dict[bytes, int] = {}
        self._directories: dict[bytes, tuple[int, int, int, int | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Set what directories are to have, unless something went wrong."""
        try:
            if kind is None:
                self.finish()
        finally:
            self._forget()

    def directory(
        self, name: bytes, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime_ns: int | None = None
    ) -> None:
        """Make a directory, and those above it, or let the one that is there have these permissions."""
        found = parts(name)
        if found:
            parent, last = self._place(name)
            try:
                os.mkdir(last, 0o755, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                    parent, last = self._room(name)
                    os.mkdir(last, 0o755, dir_fd=parent)
        self._directories[b"/".join(found)] = (mode & 0o3777, uid, gid, mtime_ns)

    def file(self, name: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> int:
        """Make an empty file and return a descriptor to write to it; setuid and setgid are left out of ``mode``."""
        parent, last = self._place(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(last, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            parent, last = self._room(name)
            fd = os.open(last, flags, 0o600, dir_fd=parent)
        try:
            self._own(fd, uid, gid)
            os.fchmod(fd, mode & 0o1777)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(self, name: bytes, content: bytes, mode: int = 0o644) -> None:
        """Make a file with a content."""
        with open(self.file(name, mode), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)

    def symlink(self, name: bytes, target: bytes, uid: int = 0, gid: int = 0) -> None:
        """Make a symbolic link; it may say anything, since what follows it stays inside."""
        parent, last = self._place(name)
        try:
            os.symlink(target, last, dir_fd=parent)
        except FileExistsError:
            parent, last = self._room(name)
            os.symlink(target, last, dir_fd=parent)
        self._own(last, uid, gid, parent)

    def link(self, name: bytes, existing: bytes) -> None:
        """Make a hard link to a file of the tree, or to a symbolic link as such."""
        source = parts(existing)
        if not source:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A descriptor of its own: the search for the other parent may close what is kept open.
        there = self._open(b"/".join(source[:-1]) or b".")
        try:
            old = os.stat(source[-1], dir_fd=there, follow_symlinks=False)
            parent, last = self._place(name)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(old, os.stat(last, dir_fd=parent, follow_symlinks=False)):
                    return
                parent, last = self._room(name)
            os.link(source[-1], last, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)

    def fifo(self, name: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Make a named pipe."""
        parent, last = self._room(name)
        os.mkfifo(last, 0o600, dir_fd=parent)
        self._own(last, uid, gid, parent)
        os.chmod(last, mode & 0o1777, dir_fd=parent)  # no link: it was made just now

    def remove(self, name: bytes) -> None:
        """Remove what is there, with all below it; nothing there, nothing to do."""
        found = parts(name)
        try:
            parent = self._open(b"/".join(found[:-1]) or b".")
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if found:
                self._clear(parent, found[-1])
            else:
                _empty(parent)
        finally:
            os.close(parent)
            self._forget()

    def finish(self) -> None:
        """Give the directories the permissions, owners and times that they are to have, the deepest first."""
        root = Path(f"/proc/self/fd/{self._root}").readlink()
        places: dict[str, tuple[int, int, int, int | None]] = {}
        for name, attributes in self._directories.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # something else stands there now
                fd = self._open(name or b".")
                try:
                    # Where it is, not how it is called: the way through links may be closed when its turn comes.
                    places[os.path.relpath(Path(f"/proc/self/fd/{fd}").readlink(), root)] = attributes
                finally:
                    os.close(fd)
        self._forget()
        self._directories.clear()
        for place in sorted(places, key=lambda place: (place != ".", place.count("/")), reverse=True):
            mode, uid, gid, mtime_ns = places[place]
            fd = self._open(os.fsencode(place))
            try:
                self._own(fd, uid, gid)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def _open(self, name: bytes, flags: int = _DIRECTORY) -> int:
        """Open a directory as who has the tree as ``/`` would."""
        how = _How(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        while True:
            fd: int = _libc.syscall(_OPENAT2, self._root, name, ctypes.byref(how), ctypes.sizeof(how))
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            if number not in {errno.EINTR, errno.EAGAIN}:
                raise OSError(number, os.strerror(number), os.fsdecode(name))

    def _place(self, name: bytes) -> tuple[int, bytes]:
        """Return a descriptor of the directory where a name is to be, made if need be, and the name's last part."""
        found = parts(name)
        if not found:
            raise IsADirectoryError(errno.EISDIR, "it is the root directory itself")
        above = b"/".join(found[:-1])
        fd = self._parents.get(above)
        if fd is None:
            fd = self._find_or_make(found[:-1])
            if len(self._parents) >= _CACHED:
                os.close(self._parents.pop(next(iter(self._parents))))
            self._parents[above] = fd
        return fd, found[-1]

    def _find_or_make(self, found: list[bytes]) -> int:
        name = b"/".join(found) or b"."
        try:
            return self._open(name)
        except FileNotFoundError:
            if not found:
                raise
        above = self._find_or_make(found[:-1])
        try:
            # A link that leads nowhere is here already: then the directory is not made, and it is said so below.
            with contextlib.suppress(FileExistsError):
                os.mkdir(found[-1], _MODE_OF_PARENTS, dir_fd=above)
                os.chmod(found[-1], _MODE_OF_PARENTS, dir_fd=above)  # whatever the umask
        finally:
            os.close(above)
        return self._open(name)

    def _room(self, name: bytes) -> tuple[int, bytes]:
        """Remove what is in the way, and return what :meth:`_place` does."""
        parent, last = self._place(name)
        self._directories.pop(b"/".join(parts(name)), None)
        self._clear(parent, last)
        self._forget()  # some parents may have been found through what was there
        return self._place(name)

    def _clear(self, parent: int, name: bytes) -> None:
        """Remove a file, a link, or a directory with all below it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                return
            fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                _empty(fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=parent)

    def _forget(self) -> None:
        """Close the parents that are kept open."""
        while self._parents:
            os.close(self._parents.popitem()[1])

    def _own(self, file: int | bytes, uid: int, gid: int, parent: int | None = None) -> None:
        """Give a file to whom it belongs, as far as this process can: in a user namespace not all ids exist."""
        if not self._owners:
            return
        try:
            os.chown(file, uid, gid, dir_fd=parent, follow_symlinks=parent is None)
        except PermissionError:
            self._owners = False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def _empty(fd: int) -> None:
    """Remove everything below a directory."""
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
            continue
        below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            _empty(below)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=fd)
