"""Copies of files and directories, into a container and out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.files import open_in
from pytest_poorcontainer.lab.protocol import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["copy_in", "copy_out"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o777
_PIECE = 1 << 24
_UNFIT = "it is a named pipe, a socket or a device, and neither a file nor a directory"


def copy_in(handle: Handle, source: str, target: bytes, owner: str | None) -> list[str]:
    """Copy into a container; see ``Files.copy_in``."""
    found = os.stat(source)  # noqa: PTH116 - a str that may end with a slash
    copier = _Into(handle, owner)
    if stat.S_ISDIR(found.st_mode):
        return copier.tree(source, target.rstrip(b"/") or b"/")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, _UNFIT, source)
    if target.endswith(b"/") or copier.is_directory(target):
        target = target.rstrip(b"/") + b"/" + os.path.basename(os.fsencode(source))  # noqa: PTH119 - bytes
    copier.file(source, target)
    return []


class _Into:
    """Copies into one container."""

    def __init__(self, handle: Handle, owner: str | None) -> None:
        handle.check()
        self._handle = handle
        self._owner = owner

    def is_directory(self, place: bytes) -> bool:
        """Return whether there is a directory of this name."""
        try:
            os.close(self._handle.agent.open(place, os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def tree(self, source: str, target: bytes) -> list[str]:
        """Copy what is in a directory, and all below; return what was left out."""
        left_out: list[str] = []
        waiting, done = [(source, target)], []
        while waiting:
            directory, place = waiting.pop()
            done.append((directory, place))
            with open_in(self._handle, place, kind=File.DIRECTORY), os.scandir(directory) as entries:
                for entry in entries:
                    inside = place.rstrip(b"/") + b"/" + os.fsencode(entry.name)
                    if entry.is_symlink():
                        self._link(entry.path, inside)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, inside))
                    elif entry.is_file(follow_symlinks=False):
                        self.file(entry.path, inside)
                    else:
                        left_out.append(entry.path)
        for directory, place in reversed(done):  # the innermost first: their making changes the time of those above
            self._finish(os.stat(directory), place)  # noqa: PTH116
        return sorted(left_out)

    def file(self, source: str, target: bytes) -> None:
        """Copy a file."""
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            with open_in(self._handle, target, _CREATE, mode=stat.S_IMODE(found.st_mode)) as copy:
                _pour(fd, copy)
        finally:
            os.close(fd)
        self._finish(found, target)

    def _link(self, source: str, target: bytes) -> None:
        text = os.fsencode(os.readlink(source))  # noqa: PTH115
        agent = self._handle.agent
        os.close(agent.open(target, kind=File.LINK, target=text, owner=self._owner))

    def _finish(self, found: os.stat_result, target: bytes) -> None:
        """Give a copy its owner, its mode, its time; in there, where that is always allowed."""
        mode = stat.S_IMODE(found.st_mode)
        os.close(self._handle.agent.open(target, mode=mode, owner=self._owner, modified=found.st_mtime_ns))


def copy_out(handle: Handle, source: bytes, target: str) -> list[str]:
    """Copy out of a container; see ``Files.copy_out``."""
    with open_in(handle, source) as fd:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            Path(target).mkdir(parents=True, exist_ok=True)
            return _OutOf(handle, target).tree(source)
        directory, name = os.path.split(target)
        if not name or (os.path.isdir(target) and not os.path.islink(target)):  # noqa: PTH112, PTH114
            directory, name = target, os.fsdecode(os.path.basename(source.rstrip(b"/")))  # noqa: PTH119
        elif os.path.islink(target):  # noqa: PTH114
            raise FileExistsError(errno.EEXIST, "it is a symbolic link, and it is not followed", target)
        Path(directory).mkdir(parents=True, exist_ok=True)
        with _opened(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) as place:
            _save(fd, place, name, target)
    return []


class _OutOf:
    """Copies a directory out of a container. Every step below the target is by descriptor, and follows no link."""

    def __init__(self, handle: Handle, target: str) -> None:
        self._handle = handle
        self._target = target

    def tree(self, source: bytes) -> list[str]:
        """Copy what is in a directory, and all below; return what was left out."""
        left_out: list[str] = []
        waiting: list[tuple[bytes, ...]] = [()]
        done: list[tuple[tuple[bytes, ...], os.stat_result]] = []
        with _opened(self._target, _DIRECTORY) as root:
            while waiting:
                parts = waiting.pop()
                # A link that took a directory's place meanwhile is not followed, only what was asked for is.
                flags = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if parts else 0)
                with open_in(self._handle, b"/".join((source.rstrip(b"/"), *parts)) or b"/", flags) as fd:
                    done.append((parts, os.fstat(fd)))
                    with self._at(root, parts) as place, os.scandir(fd) as entries:
                        waiting += self._entries(source, parts, place, entries, left_out)
            for parts, found in reversed(done):
                self._finish(root, parts, found)
        return sorted(left_out)

    def _entries(
        self,
        source: bytes,
        parts: tuple[bytes, ...],
        place: int,
        entries: Iterator[os.DirEntry[str]],
        left_out: list[str],
    ) -> list[tuple[bytes, ...]]:
        """Copy what is in one directory; return the directories in it."""
        found = []
        for entry in entries:
            within = (*parts, os.fsencode(entry.name))
            inside = b"/".join((source.rstrip(b"/"), *within))
            shown = os.path.join(self._target, os.fsdecode(b"/".join(within)))  # noqa: PTH118
            if entry.is_symlink():
                self._link(inside, place, entry.name, shown)
            elif entry.is_dir(follow_symlinks=False):
                _make_directory(place, entry.name, shown)
                found.append(within)
            elif entry.is_file(follow_symlinks=False):
                with open_in(self._handle, inside, os.O_RDONLY | os.O_NOFOLLOW) as fd:
                    _save(fd, place, entry.name, shown)
            else:
                left_out.append(os.fsdecode(inside))
        return found

    def _link(self, inside: bytes, place: int, name: str, shown: str) -> None:
        with open_in(self._handle, inside, os.O_PATH | os.O_NOFOLLOW) as fd:
            text = os.readlink(b"", dir_fd=fd)
        _clear(place, name, shown)
        os.symlink(text, os.fsencode(name), dir_fd=place)

    @contextlib.contextmanager
    def _at(self, root: int, parts: tuple[bytes, ...]) -> Iterator[int]:
        """Open a directory below the target, from name to name."""
        fd = os.dup(root)
        try:
            for part in parts:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _finish(self, root: int, parts: tuple[bytes, ...], found: os.stat_result) -> None:
        with self._at(root, parts) as place, _opened(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, place) as fd:
            if parts:  # the target itself is the test's own, and stays as permitted as it was
                os.fchmod(fd, found.st_mode & _PERMISSIONS)
            os.utime(fd, ns=(found.st_mtime_ns, found.st_mtime_ns))


@contextlib.contextmanager
def _opened(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _make_directory(place: int, name: str, shown: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=place)
        return
    if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
        raise FileExistsError(errno.EEXIST, "a directory would take its place", shown)


def _clear(place: int, name: str, shown: str) -> None:
    """Remove a file or a link that a copy is to replace."""
    try:
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise FileExistsError(errno.EEXIST, "it is neither a file nor a link, and is not replaced by one", shown)
    os.unlink(name, dir_fd=place)


def _save(source: int, place: int, name: str, shown: str) -> None:
    """Copy a file that is open into a new one of this name."""
    _clear(place, name, shown)
    found = os.fstat(source)
    fd = os.open(name, _NEW, 0o600, dir_fd=place)
    try:
        _pour(source, fd)
        os.fchmod(fd, found.st_mode & _PERMISSIONS)
        os.utime(fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
    finally:
        os.close(fd)


def _pour(source: int, target: int) -> None:
    """Copy all bytes; holes stay holes, or a file of a terabyte that has none would fill the disk."""
    size = os.fstat(source).st_size
    if size == 0:  # or it is one of /proc's, which do not say how long they are
        while data := os.read(source, _PIECE):
            _write(target, data)
        return
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to the end
        end = min(os.lseek(source, position, os.SEEK_HOLE), size)
        os.lseek(target, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(target, source, position, min(end - position, _PIECE))
            if sent == 0:
                return  # it has become shorter meanwhile
            position += sent
    os.ftruncate(target, size)


def _write(target: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]
