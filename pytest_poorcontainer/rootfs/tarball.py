"""A tarball as the root of containers: unpacked once per lab, into its memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.plugins import hookimpl
from pytest_poorcontainer.rootfs.compressed import kind
from pytest_poorcontainer.rootfs.looking import look
from pytest_poorcontainer.rootfs.source import Rootfs

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Tarball", "poor_container_rootfs"]

_START = 512  # bytes that tell what a file is


class Tarball(Rootfs):
    """A tar archive of a root file system, compressed with gzip, bzip2, xz or zstd or not at all.

    Nothing in it can make a file outside of its tree. Device nodes are left out, setuid and setgid bits of files
    dropped, extended attributes too. Owners are kept as root; for an ordinary user all is the container's root's.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        """Take an existing file; it is looked at, and read when the first container wants it.

        Raises :class:`UsageError` for one that is no tarball.
        """
        self.path = os.path.realpath(path)
        try:
            with Path(self.path).open("rb") as file:
                state, start = os.fstat(file.fileno()), file.read(_START)
        except OSError as error:
            raise UsageError(f"rootfs={os.fspath(path)!r}: cannot read the file: {error.strerror}") from None
        if not _is_tarball(start):
            raise UsageError(
                f"rootfs={os.fspath(path)!r} is a file, but no tarball: neither tar nor tar in gzip, bzip2, xz or "
                "zstd; a list of programs is written as a list: rootfs=['/bin/sh']"
            )
        super().__init__(_identity(self.path, state), readonly=readonly)

    @property
    def description(self) -> str:
        """The word, and the path without links."""
        return f"tarball {self.path}"

    def key(self) -> Hashable:
        """Return which file it is now: its path, inode, size and time of change. Raises :class:`LabError`."""
        try:
            return _identity(self.path, Path(self.path).stat())
        except OSError as error:
            raise self._failed(error.errno or 0, "it was there when it was named; what has removed it?") from None

    def fill(self, dir_fd: int) -> None:
        """Unpack it. Raises :class:`UsageError` for what is wrong with it, :class:`LabError` for what is with the lab.

        :class:`Unavailable` says that this Python cannot read zstd.
        """
        # Here, so that an argument can be checked without them.
        from pytest_poorcontainer.rootfs.archive import Archive, Broken  # noqa: PLC0415
        from pytest_poorcontainer.rootfs.tree import Tree  # noqa: PLC0415
        from pytest_poorcontainer.rootfs.unpack import unpack  # noqa: PLC0415

        try:
            with Path(self.path).open("rb") as file, Tree(dir_fd) as tree:
                start = file.read(_START)
                file.seek(0)
                unpack(Archive(file, start), tree)
        except Broken as error:
            raise UsageError(f"cannot use tarball {self.path} as a root file system: it {error}") from None
        except OSError as error:
            raise self._failed(error.errno or 0, f"at {error.filename!r}" if error.filename else "") from error

    def _failed(self, number: int, remedy: str) -> LabError:
        return LabError("take as a root file system", f"tarball {self.path}", number, remedy)


def _identity(path: str, state: os.stat_result) -> Hashable:
    return path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _is_tarball(start: bytes) -> bool:
    if kind(start):
        return True  # what is in it shows when it is unpacked
    from pytest_poorcontainer.rootfs.archive import start_of_tar  # noqa: PLC0415 - seldom

    return start_of_tar(start)


@hookimpl(tryfirst=True)
def poor_container_rootfs(source: str | os.PathLike[str], readonly: bool) -> Rootfs | None:
    """Know paths of files."""
    state = look(source)
    if state is None or stat.S_ISDIR(state.st_mode):
        return None
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"rootfs={os.fspath(source)!r} is neither a directory nor a regular file")
    return Tarball(source, readonly=readonly)
