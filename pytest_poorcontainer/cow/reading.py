"""Reading a tree by its merged view, whatever its backend."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_poorcontainer.cow.backend import Backend

    Name = str | os.PathLike[str]

__all__ = ["Readable"]


class Readable:
    """What reads a tree. Paths are relative to it, or begin with its place."""

    _backend: Backend
    place: str
    closed: bool

    def _check(self) -> None:
        if self.closed:
            raise PoorContainerError(f"the tree of {self.place} is closed: it cannot be used any more")

    def open(self, file: Name, mode: str = "r", **options: Any) -> IO[Any]:
        """Open a file of the tree as ``open`` does; ``file`` is relative to it, or begins with its place.

        Symbolic links are followed as programs in the tree follow them. For writing the tree needs a path.
        """
        self._check()
        if set(mode) <= set("rbtU"):
            found = self._backend.view.resolve(file)
            fd = os.open(found, os.O_RDONLY | os.O_CLOEXEC) if found.startswith("/") else self._backend.view.open(found)
            return os.fdopen(fd, mode, **options)
        return open(self._writable(file), mode, **options)

    def _writable(self, file: Name) -> str:
        """Return the real path of a file, whose links were followed in the tree."""
        root = self._backend.path()
        try:
            found = self._backend.view.resolve(file)
        except FileNotFoundError:
            head, _, name = self._backend.view.inside(file).rpartition("/")
            found = os.path.join(self._backend.view.resolve(head), name)
        return os.path.join(root, found)

    def read_text(self, file: Name, encoding: str = "utf-8", errors: str | None = None) -> str:
        """Return what a file has, as text."""
        with self.open(file, "r", encoding=encoding, errors=errors) as opened:
            return str(opened.read())

    def read_bytes(self, file: Name) -> bytes:
        """Return what a file has."""
        with self.open(file, "rb") as opened:
            return bytes(opened.read())

    def write_text(self, file: Name, text: str, encoding: str = "utf-8") -> None:
        """Write a file; the tree needs a path for that."""
        with self.open(file, "w", encoding=encoding) as opened:
            opened.write(text)

    def iterdir(self, directory: Name = ".") -> Iterator[PurePosixPath]:
        """Yield the paths of what is in a directory, relative to the tree, in order."""
        self._check()
        found = self._backend.view.resolve(directory)
        return iter([PurePosixPath(found, name) for name in self._backend.view.listing(found)])

    def walk(self) -> Iterator[PurePosixPath]:
        """Yield the path of everything in the tree, parents first."""
        self._check()
        return (PurePosixPath(path) for path, _, _ in self._backend.view.walk())

    def stat(self, file: Name = ".", *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what ``os.stat`` does."""
        self._check()
        found = self._backend.view.resolve(file, follow=follow_symlinks)
        return (
            os.stat(found, follow_symlinks=follow_symlinks)
            if found.startswith("/")
            else self._backend.view.lstat(found)
        )

    def readlink(self, file: Name) -> str:
        """Return where a symbolic link leads."""
        self._check()
        return self._backend.view.readlink(self._backend.view.resolve(file, follow=False))

    def exists(self, file: Name) -> bool:
        """Return whether it is there; a symbolic link that leads nowhere is not."""
        return self._kind(file) is not None

    def is_file(self, file: Name) -> bool:
        """Return whether it is a regular file."""
        return self._kind(file) == stat.S_IFREG

    def is_dir(self, file: Name) -> bool:
        """Return whether it is a directory."""
        return self._kind(file) == stat.S_IFDIR

    def _kind(self, file: Name) -> int | None:
        try:
            return stat.S_IFMT(self.stat(file).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise
