"""The files of a container, as its own processes see them.

Every path is looked up by the container's agent, whose root is the container's: a symbolic link, absolute or not, leads
where it leads in there, and nowhere else. What comes back is a descriptor, and the test's own process reads or writes
that.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.request import user_text
from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab import forks
from pytest_poorcontainer.lab.agent import shown
from pytest_poorcontainer.lab.names import located
from pytest_poorcontainer.lab.protocol import File

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from pytest_poorcontainer.container.request import Text
    from pytest_poorcontainer.lab.handle import Handle

    Buffer: TypeAlias = "bytes | bytearray | memoryview"

__all__ = ["Files", "open_in"]

_WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_LINKS_MAX = 40  # as many as the kernel follows (path_resolution(7))
_MODES_MAX = 0o7777
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_CHUNK = 1 << 20
_HINTS = {
    errno.EROFS: "this directory is read-only in the container; mounts.overlay() or mounts.tmpfs() on it is writable",
    errno.ELOOP: "or it is one of /proc's links to what a process has open, which are not followed",
}

_first = threading.Lock()


class Files:
    """What every container can do with its files; paths are absolute, and the container's.

    What is wrong raises as pathlib does, with the name "CONTAINER:/path": FileNotFoundError, IsADirectoryError and
    their like; a named pipe, a socket or a device is an OSError (EINVAL). A relative path is a :class:`UsageError`.
    """

    _handle: Handle
    _places: _Places | None = None

    def read(self, path: Text, *, encoding: str = "utf-8", errors: str | None = None) -> str:
        """Return a file's text, as ``Path.read_text`` does: all kinds of newlines become one."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes(path)), encoding=encoding, errors=errors).read()

    def read_bytes(self, path: Text) -> bytes:
        """Return a file's content."""
        place = located(path)
        with open_in(self._handle, place) as fd, open(fd, "rb", closefd=False) as file:
            return file.read()

    def write(
        self,
        path: Text,
        text: str,
        *,
        encoding: str = "utf-8",
        errors: str | None = None,
        mode: int | None = None,
        owner: str | int | None = None,
    ) -> None:
        """Write a file anew; directories that are missing on the way are made.

        ``mode`` are its permissions (0o640), ``owner`` the name or number of the container's user who gets it, with the
        user's group; otherwise a new file is root's and 0o644, and one that was there keeps its own.
        """
        if not isinstance(text, str):
            raise TypeError(f"expected text, not {type(text).__name__}; write_bytes() takes bytes")
        self.write_bytes(path, text.encode(encoding, errors or "strict"), mode=mode, owner=owner)

    def write_bytes(self, path: Text, data: Buffer, *, mode: int | None = None, owner: str | int | None = None) -> None:
        """Write a file of bytes anew; else as :meth:`write`."""
        left = memoryview(data).cast("B")
        place = located(path)
        with open_in(self._handle, place, _WRITING, mode=mode, owner=owner) as fd:
            while left:
                left = left[os.write(fd, left[:_CHUNK]) :]
        if mode is not None and mode & _SET_IDS:
            # Without root the kernel takes them away from what this process writes to (inode(7)).
            with open_in(self._handle, place, mode=mode):
                pass

    def mkdir(self, path: Text, *, mode: int | None = None, owner: str | int | None = None) -> None:
        """See to it that there is a directory, with all above it; one that is there is none the worse for it.

        ``mode`` and ``owner`` are what it then has; those above that had to be made are root's and 0o755. Raises
        FileExistsError when something else has its name.
        """
        with open_in(self._handle, located(path), kind=File.DIRECTORY, mode=mode, owner=owner):
            pass

    def exists(self, path: Text) -> bool:
        """Return whether there is a file or directory of this name, as ``Path.exists`` does, following links.

        /dev/stdin and its like, which are whatever a process has open, do not exist here.
        """
        self._handle.check()
        try:
            fd = self._handle.agent.open(located(path), os.O_PATH)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return False
        os.close(fd)
        return True

    def glob(self, pattern: Text) -> list[str]:
        """Return the paths that fit an absolute pattern, in order: ``glob("/etc/*.d/**/*.conf")``.

        ``*``, ``?`` and ``[...]`` are as in pathlib, so they fit names that begin with a dot; ``**`` is any number of
        directories, not through symbolic links, and at the end all that is below. A slash at the end: directories only.
        What may not be read is passed over.
        """
        from pytest_poorcontainer.container.files_glob import glob  # noqa: PLC0415 - few tests need it

        return glob(self._handle, os.fsdecode(located(pattern)))

    def copy_in(self, source: Text, target: Text, *, owner: str | int | None = None) -> list[str]:
        """Copy a file or a directory of the machine's into the container.

        A file becomes ``target``, or comes into it where that is a directory or ends with a slash; a directory's
        content comes into ``target``, beside what is there. Directories that are missing are made. Symbolic links stay
        links (but ``source`` itself is followed), modes and times of modification are kept; all is root's, or
        ``owner``'s. Returns the paths of what is not copied: named pipes, sockets, devices.
        """
        from pytest_poorcontainer.container.files_copy import copy_in  # noqa: PLC0415

        return copy_in(self._handle, os.fsdecode(source), located(target), _owner(owner))

    def copy_out(self, source: Text, target: Text) -> list[str]:
        """Copy a file or a directory of the container's to the machine; else as :meth:`copy_in`.

        Whatever the container does meanwhile, nothing is written outside of ``target``, which must be no symbolic link:
        there, files and links are replaced, and none is followed. Set-user-ID bits are not kept. Raises FileExistsError
        where a directory of the machine's would have to become something else.
        """
        from pytest_poorcontainer.container.files_copy import copy_out  # noqa: PLC0415

        return copy_out(self._handle, located(source), os.fsdecode(target))

    def path(self, path: Text) -> Path:
        """Return a path under which this process and its children find a file of the container's, until it is closed.

        The file need not be there, its directory must: it is looked up now, as the container would. The path leads
        through /proc/PID/fd, so it works for what opens it as it is (tarfile, a C library, a command). What resolves
        it by itself first, as realpath(3) and SQLite do, ends up with the container's path, and on the machine: share
        a directory with ``mounts.bind`` for that. And links that the container makes there *later*, or absolute ones
        below a directory, lead the test's process as any link of the machine's would: :meth:`read`, :meth:`glob` and
        :meth:`copy_out` are for what cannot be trusted.
        """
        with _first:
            if self._places is None:
                self._places = _Places()
        return self._places.find(self._handle, located(path))

    def _close_files(self) -> None:
        """Give back what :meth:`path` holds."""
        if self._places is not None:
            self._places.close()


class _Places:
    """Directories that paths lead to, each held by a descriptor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: dict[tuple[int, int, str], int] = {}

    def find(self, handle: Handle, place: bytes) -> Path:
        """Return a path of this process's; see ``Files.path``."""
        handle.check()
        for _ in range(_LINKS_MAX):
            parent, _, name = place.rstrip(b"/").rpartition(b"/")
            if name in (b"", b".", b".."):
                return self._hold(handle, place or b"/")
            target = _target(handle, place.rstrip(b"/"))
            if target is None:
                return self._hold(handle, parent or b"/") / os.fsdecode(name)
            place = target if target.startswith(b"/") else parent + b"/" + target
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), shown(handle.name, place))

    def _hold(self, handle: Handle, directory: bytes) -> Path:
        fd = handle.agent.open(directory, os.O_PATH | os.O_DIRECTORY)
        found = os.fstat(fd)
        # A directory may be seen at two places, of which one is read-only: the mount tells them apart.
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        key = (found.st_dev, found.st_ino, next(line for line in lines if line.startswith("mnt_id")))
        with self._lock:
            if key in self._fds:
                os.close(fd)
            else:
                forks.guard(fd)
                self._fds[key] = fd
            return Path("/proc", os.readlink("/proc/self"), "fd", str(self._fds[key]))  # noqa: PTH115 - a str

    def close(self) -> None:
        """Let go of all of them. Idempotent."""
        with self._lock:
            while self._fds:
                _, fd = self._fds.popitem()
                forks.expose(fd)
                os.close(fd)

    def __del__(self) -> None:
        """Let go of what nobody refers to any more."""
        self.close()


def _target(handle: Handle, place: bytes) -> bytes | None:
    """Return what a symbolic link says; None when it is none, or not there."""
    try:
        fd = handle.agent.open(place, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_in(
    handle: Handle,
    place: bytes,
    flags: int = os.O_RDONLY,
    *,
    kind: File = File.OPEN,
    mode: int | None = None,
    owner: str | int | None = None,
) -> Iterator[int]:
    """Open a file of a container's while the block runs; what goes wrong with it in there gets its name.

    Raises as :class:`Files` says.
    """
    if mode is not None and (isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= _MODES_MAX):
        raise UsageError(f"mode is a number from 0 to 0o7777, such as 0o640, not {mode!r}")
    user = _owner(owner)
    handle.check()
    try:
        fd = handle.agent.open(place, flags, kind=kind, mode=mode, owner=user)
    except OSError as error:
        if error.errno not in _HINTS:
            raise
        raise OSError(error.errno, f"{error.strerror}; {_HINTS[error.errno]}", error.filename) from None
    try:
        yield fd
    except OSError as error:
        if isinstance(error.filename, str):
            raise
        raise OSError(error.errno, error.strerror, shown(handle.name, place)) from error
    finally:
        os.close(fd)


def _owner(owner: str | int | None) -> str | None:
    return None if owner is None else user_text(owner)
