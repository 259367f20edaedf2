"""A directory of the machine as the root of containers."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, UsageError
from pytest_poorcontainer.plugins import hookimpl
from pytest_poorcontainer.rootfs.looking import look
from pytest_poorcontainer.rootfs.source import Rootfs

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Directory", "poor_container_rootfs"]


class Directory(Rootfs):
    """A directory of the machine. It is the lower of an overlay: containers see it and never change it."""

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        """Take an existing directory that this user can read; links in its path are followed now.

        Raises :class:`UsageError`.
        """
        self.path = os.path.realpath(path)
        try:
            state = Path(self.path).stat()
        except OSError as error:
            raise UsageError(f"rootfs={os.fspath(path)!r}: cannot look at the directory: {error.strerror}") from None
        if not stat.S_ISDIR(state.st_mode):
            raise UsageError(f"rootfs={os.fspath(path)!r} is no directory")
        if not os.access(self.path, os.R_OK | os.X_OK):
            raise UsageError(f"rootfs={os.fspath(path)!r}: this user (uid {os.geteuid()}) may not read the directory")
        if self.path == "/":
            raise UsageError("rootfs='/' is the machine's own: leave rootfs= out, or write rootfs='host'")
        super().__init__((self.path, state.st_dev, state.st_ino), readonly=readonly)

    @property
    def description(self) -> str:
        """The word, and the path without links."""
        return f"directory {self.path}"

    def directory(self) -> str:
        """Return the path without links."""
        return self.path

    def key(self) -> Hashable:
        """Return which directory it is now. Raises :class:`LabError` when it is gone.

        A lab holds each one that it has, so that the kernel gives its number to no other.
        """
        try:
            state = Path(self.path).stat()
        except OSError as error:
            raise self._gone(error.errno or 0) from None
        if not stat.S_ISDIR(state.st_mode):
            raise self._gone(0)
        return self.path, state.st_dev, state.st_ino

    def _gone(self, number: int) -> LabError:
        remedy = "the directory was there when it was named as a root file system; what has removed it?"
        return LabError("take as a root file system", self.path, number, remedy)


@hookimpl(tryfirst=True)
def poor_container_rootfs(source: str | os.PathLike[str], readonly: bool) -> Rootfs | None:
    """Know paths of directories."""
    state = look(source)
    return Directory(source, readonly=readonly) if state and stat.S_ISDIR(state.st_mode) else None
