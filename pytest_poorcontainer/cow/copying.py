"""Copies of files with all that belongs to them: content, holes, mode, owner, times, xattrs, hard links."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.cow import overlayfs
from pytest_poorcontainer.cow.layer import Layer, join

if TYPE_CHECKING:
    from pytest_poorcontainer.cow.view import View

__all__ = ["Copier", "remove", "remove_directory"]

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_CHUNK = 1 << 30
_NOT_COPIED = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)
_NO_XATTRS = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENODATA})


class Copier:
    """Copies from one layer to another. What is one file by several names in what it copies is so in the copy.

    ``owners`` is whether files keep them, which takes root; ``clone`` demands that content is shared (FICLONE), else it
    is shared where copy_file_range(2) can. ``own`` is whether the marks of the format are copied too: for a copy of an
    upper as such. All methods raise :class:`OSError`.
    """

    def __init__(self, target: Layer, *, owners: bool | None = None, clone: bool = False, own: bool = False) -> None:
        """Copy into ``target``."""
        self.target = target
        self.owners = os.geteuid() == 0 if owners is None else owners
        self._clone = clone
        self._own = own
        self._links: dict[tuple[int, int], str] = {}

    def entry(self, source: Layer, path: str, info: os.stat_result, to: str | None = None) -> None:
        """Copy one thing; of a directory itself only. Nothing is at its new place ``to`` (``path`` unless given)."""
        place = path if to is None else to
        if stat.S_ISDIR(info.st_mode):
            with self.target.place(place) as new:
                os.mkdir(new, 0o700)
        else:
            key = info.st_dev, info.st_ino
            if info.st_nlink > 1 and self._link(key, place):
                return
            self._content(source, path, info, place)
            if info.st_nlink > 1:
                self._links[key] = place
        self.metadata(source, path, info, place)

    def tree(self, view: View, path: str = "", to: str = "") -> None:
        """Copy a directory of a view with all that is below it into one that is there."""
        directories = [(path, to, view.lstat(path), view.stack(path)[0])]
        for below, info, layer in view.walk(path):
            place = join(to, below[len(path) :].lstrip("/")) if path else join(to, below)
            self.entry(layer, below, info, place)
            if stat.S_ISDIR(info.st_mode):
                directories.append((below, place, info, layer))
        for below, place, info, layer in reversed(directories):  # what was made in them has changed their times
            self.metadata(layer, below, info, place)

    def _link(self, key: tuple[int, int], place: str) -> bool:
        """Make one more name of a file that was copied under another; return whether it was."""
        first = self._links.get(key)
        if first is None:
            return False
        with self.target.place(first) as old, self.target.place(place) as new:
            os.link(old, new, follow_symlinks=False)
        return True

    def _content(self, source: Layer, path: str, info: os.stat_result, to: str) -> None:
        """Make a file, a link, or whatever it is, without what belongs to it."""
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self._file(source, path, info.st_size, to)
            return
        with self.target.place(to) as new:
            if kind == stat.S_IFLNK:
                os.symlink(source.readlink(path), new)
            else:  # a whiteout is a device, too
                os.mknod(new, kind | 0o600, info.st_rdev)

    def _file(self, source: Layer, path: str, size: int, to: str) -> None:
        old = source.open(path)
        try:
            new = self.target.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                if self._clone and size:
                    fcntl.ioctl(new, _FICLONE, old)
                else:
                    _copy(old, new, size)
            finally:
                os.close(new)
        finally:
            os.close(old)

    def metadata(self, source: Layer, path: str, info: os.stat_result, to: str) -> None:
        """Give what is at ``to`` the original's owner, mode, xattrs and times, in an order that keeps them."""
        with source.place(path) as old, self.target.place(to) as new:
            if self.owners:
                os.chown(new, info.st_uid, info.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(info.st_mode):
                os.chmod(new, stat.S_IMODE(info.st_mode))
            self._xattrs(old, new)
            os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)

    def _xattrs(self, old: str, new: str) -> None:
        try:
            names = os.listxattr(old, follow_symlinks=False)
        except OSError:
            return  # a file system without any
        for name in names:
            if overlayfs.is_own(name) and not self._own:
                continue
            try:
                os.setxattr(new, name, os.getxattr(old, name, follow_symlinks=False), follow_symlinks=False)
            except OSError as error:
                # Those of the system ("security.") are not ours to set; an ordinary one that is lost is an error.
                if error.errno not in _NO_XATTRS or (name.startswith("user.") and self._own):
                    raise


def _copy(old: int, new: int, size: int) -> None:
    """Copy content, holes left out, by the kernel where it can."""
    os.ftruncate(new, size)
    at = 0
    while at < size:
        start, end = _data(old, at, size)
        if start >= size:
            return
        at = start
        while at < end:
            at += _some(old, new, at, end - at)


def _data(fd: int, at: int, size: int) -> tuple[int, int]:
    """Return the next stretch that is no hole (lseek(2), SEEK_DATA)."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        return at, size  # a file system that tells nothing of holes


def _some(old: int, new: int, at: int, length: int) -> int:
    """Copy up to ``length`` bytes; return how many."""
    try:
        done = os.copy_file_range(old, new, min(length, _CHUNK), at, at)
    except OSError as error:
        if error.errno not in _NOT_COPIED:
            raise
        done = 0
    if done:
        return done
    data = os.pread(old, min(length, 1 << 20), at)
    if not data:
        return length  # it has become shorter meanwhile
    written = 0
    while written < len(data):
        written += os.pwrite(new, data[written:], at + written)
    return len(data)


def remove(layer: Layer, path: str) -> None:
    """Remove what is there with all below it; nothing there, nothing to do. Directories without permissions too."""
    info = layer.find(path)
    if info is None:
        return
    with layer.place(path) as place:
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(place)
            return
    deepest = [path, *(below for below, one in _directories(layer, path) if stat.S_ISDIR(one.st_mode))]
    for directory in sorted(deepest, key=lambda each: each.count("/"), reverse=True):
        for name, one in layer.entries(directory):
            if not stat.S_ISDIR(one.st_mode):
                with layer.place(join(directory, name)) as place:
                    os.unlink(place)
        with layer.place(directory) as place:
            os.rmdir(place)


def _directories(layer: Layer, path: str) -> list[tuple[str, os.stat_result]]:
    """Return the directories below one, each made readable on the way: overlay's own work directory has no mode."""
    found, queue = [], [path]
    while queue:
        directory = queue.pop()
        with layer.place(directory) as place:
            mode = os.lstat(place).st_mode
            if mode & 0o700 != 0o700:  # noqa: PLR2004 - what it takes to empty it
                with contextlib.suppress(PermissionError):  # the listing says what is wrong
                    os.chmod(place, 0o700)
        for name, info in layer.entries(directory):
            if stat.S_ISDIR(info.st_mode):
                found.append((join(directory, name), info))
                queue.append(join(directory, name))
    return found


def remove_directory(path: str) -> None:
    """Remove a directory of the machine with all below it, whatever its modes. Raises OSError."""
    try:
        parent = Layer.at(os.path.dirname(path) or ".")
    except FileNotFoundError:
        return
    try:
        remove(parent, os.path.basename(path))
    finally:
        parent.close()
