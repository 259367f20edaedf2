"""What a root file system of programs is to hold, noted before anything of it is made.

Paths are the machine's, and stay the same inside. Symbolic links on the way to a file are links inside too, so that
/bin/sh is found by the same detours: /bin -> usr/bin, sh -> dash.
"""

# Paths are text in here: objects for thousands of them cost more than what is done with them.
# ruff: noqa: PTH112, PTH114, PTH115, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MACHINE", "Plan"]

MACHINE = "/.machine"
"""Below it lie the directories of the machine of which a part is linked to its place."""

_LINKS_MAX = 40  # as the kernel, path_resolution(7)
_PRIVATE = ("/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 - which every container has of its own
_CHUNK = 1 << 30  # bytes
_COPIED_FILES_MAX = 512  # a directory with more in it is bound, not copied
_COPIED_BYTES_MAX = 4 << 20


class Plan:
    """Directories, links, files and binds of a root file system to be."""

    def __init__(self) -> None:
        """Begin with nothing but the root."""
        self.directories: dict[str, int] = {"/": 0o755}  # to mode
        self.links: dict[str, str] = {}  # to what it says
        self.files: dict[str, str] = {}  # to the file of the machine
        self.texts: dict[str, str] = {}  # to the content
        self.binds: dict[str, str] = {}  # place to the directory of the machine
        self._stats: dict[str, tuple[int, ...]] = {}
        self._real: dict[str, str] = {}
        self._watching = True
        self._linked: set[str] = set()  # what is there as on the machine, with all that is below it

    def place(self, path: str) -> str:
        """Note a file or an empty directory of the machine, and the links that lead to it; return where it really is.

        Raises OSError when it is not there. What is bound already is left as it is.
        """
        known = self._real.get(path)
        if known is not None:
            return known
        names, at, links = path.split("/"), "/", 0
        while names:
            name = names.pop(0)
            if name in {"", "."}:
                continue
            at_next = posixpath.dirname(at) if name == ".." else posixpath.join(at, name)
            if at_next in self.directories:
                at = at_next
                continue
            info = os.lstat(at_next)
            if stat.S_ISLNK(info.st_mode):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(at_next)
                if self._is_copied(at_next):
                    self.texts.pop(at_next, None)
                    self.links[at_next] = target
                    self._note(at_next, info)
                at = "/" if target.startswith("/") else posixpath.dirname(at_next)
                names[:0] = target.split("/")
                continue
            at = at_next
            self._add(at, info)
        self._real[path] = at
        return at

    def _add(self, path: str, info: os.stat_result) -> None:
        if stat.S_ISDIR(info.st_mode):
            if not self.covers(path):
                self.directories[path] = stat.S_IMODE(info.st_mode) & 0o1777 | 0o700
        elif not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is neither a file nor a directory", path)
        elif self._is_copied(path):
            self.texts.pop(path, None)
            self.files[path] = path
            self._note(path, info)

    def _is_copied(self, path: str) -> bool:
        """Return whether a file or link is to be copied; else it is there by a bind.

        Containers have a /tmp of their own, which hides what the root file system has there. Binds come later: so a
        file there comes with its directory.
        """
        if _is_private(path) and not self.covers(path):
            directory = posixpath.dirname(path)
            if directory in _PRIVATE:
                raise UsageError(
                    f"{path}: containers have {directory} of their own; put it into a directory of its own"
                )
            self.bind(directory)
        return not self.covers(path)

    def _note(self, path: str, info: os.stat_result) -> None:
        if self._watching:
            self._stats[path] = _signature(info)

    def covers(self, path: str) -> bool:
        """Return whether a path shows what the machine has there, by a bind."""
        if not self._linked:
            return False
        while path != "/":
            if path in self._linked:
                return True
            path = posixpath.dirname(path)
        return False

    def make(self, directory: str) -> str:
        """Note a directory that need not be on the machine, by the links that lead there; return where it really is."""
        found = directory
        while not os.path.isdir(found):
            found = posixpath.dirname(found)
        at = self.place(found)
        for name in filter(None, directory[len(found) :].split("/")):
            at = posixpath.join(at, name)
            self.directories.setdefault(at, 0o755)
        return at

    def write(self, path: str, text: str) -> None:
        """Note a file of our own; what the machine has there does not matter."""
        place = posixpath.join(self.make(posixpath.dirname(path)), posixpath.basename(path))
        self.files.pop(place, None)
        self.links.pop(place, None)
        self.texts[place] = text

    def link(self, path: str, target: str) -> None:
        """Note a link of our own, where nothing is yet."""
        place = posixpath.join(self.make(posixpath.dirname(path)), posixpath.basename(path))
        if not self.covers(place) and place not in self.files and place not in self.links:
            self.links[place] = target

    def bind(self, directory: str) -> str:
        """Note that a directory of the machine is seen whole, read-only, at its place. Raises OSError."""
        real = self.place(directory)
        if not self.covers(real):
            self.binds[real] = real
            self._linked.add(real)
        return real

    def choose(self, directory: str, names: list[str]) -> None:
        """Note that some entries of a directory of the machine are seen at their places, read-only, others not.

        The directory is bound below :data:`MACHINE`, and links lead there: so one bind does for all. Raises OSError.
        """
        real = self.place(directory)
        if _is_private(real):
            self.bind(real)
        if self.covers(real):
            return
        bound = next((place for place, source in self.binds.items() if source == real), "")
        if not bound:
            bound = f"{MACHINE}/{len(self.binds)}"
            self.make(bound)
            self.binds[bound] = real
        for name in names:
            entry = posixpath.join(real, name)
            if entry in self._linked:
                continue
            if os.path.islink(entry) and not self._leads_within(real, entry):
                self.place(entry)
            elif entry in self.directories:  # a part of it has been placed before
                self.bind(entry)
            else:
                self.files.pop(entry, None)
                self.links[entry] = posixpath.join(bound, name)
                self._linked.add(entry)

    @staticmethod
    def _leads_within(directory: str, link: str) -> bool:
        return os.path.realpath(link).startswith(directory + "/")

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Within, note what changes too rarely to be looked at again for each container."""
        self._watching = False
        try:
            yield
        finally:
            self._watching = True

    def add_tree(self, directory: str) -> None:
        """Note a directory with all that is in it: copied when it is small, bound when it is not. Raises OSError."""
        real = self.place(directory)
        if self.covers(real):
            return
        found = _listed(real)
        if found is None:
            self.bind(directory)
            return
        for path in found:
            with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere leads nowhere inside too
                self.place(path)

    def signature(self) -> tuple[object, ...]:
        """Return what tells that a file of the plan has changed since. Binds show changes by themselves."""
        return tuple(self._stats.items())

    def is_current(self) -> bool:
        """Return whether all files and links of the machine are what they were when they were noted."""
        try:
            return all(_signature(os.lstat(path)) == known for path, known in self._stats.items())
        except OSError:
            return False

    def fill(self, dir_fd: int) -> None:
        """Make all of it in an empty directory. Raises :class:`LabError` that names the file that cannot be copied.

        Nothing in here is reached through a link: the paths are those without. Owners are this process's ids, and
        set-id bits are not copied: in containers they have no effect.
        """
        for path in sorted(self.directories):
            if path != "/":
                os.mkdir(path[1:], dir_fd=dir_fd)
                os.chmod(path[1:], self.directories[path], dir_fd=dir_fd)
        for path, target in self.links.items():
            os.symlink(target, path[1:], dir_fd=dir_fd)
        self._copy_files(dir_fd)
        for path, text in self.texts.items():
            fd = os.open(path[1:], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=dir_fd)
            with open(fd, "w", encoding="utf-8") as file:
                os.fchmod(fd, 0o644)
                file.write(text)

    def _copy_files(self, dir_fd: int) -> None:
        copied: dict[tuple[int, int], str] = {}
        source = ""
        try:
            for path, source in self.files.items():
                _copy(source, path[1:], dir_fd, copied)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise LabError("copy into the root file system", source, error.errno or errno.EIO) from error


def _is_private(path: str) -> bool:
    return path.startswith(tuple(f"{directory}/" for directory in _PRIVATE))


def _signature(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode


def _listed(directory: str) -> list[str] | None:
    """Return all files, links and directories below a directory; None when they are too many or too large to copy."""
    found, size, queue = [], 0, [directory]
    while queue:
        with os.scandir(queue.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
                elif not entry.is_symlink():
                    continue
                found.append(entry.path)
        if len(found) > _COPIED_FILES_MAX or size > _COPIED_BYTES_MAX:
            return None
    return found


def _copy(source: str, place: str, dir_fd: int, copied: dict[tuple[int, int], str]) -> None:
    """Copy one file by descriptors; what is one file by two names on the machine is so here."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(source, flags)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file any more", source)
        first = copied.setdefault((info.st_dev, info.st_ino), place)
        if first != place:
            os.link(first, place, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            return
        made = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
        try:
            while os.sendfile(made, fd, None, _CHUNK):
                continue
            os.fchmod(made, info.st_mode & 0o777 | 0o400)
            os.utime(made, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(made)
    finally:
        os.close(fd)
