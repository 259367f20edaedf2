"""Patterns of paths, looked up in a container."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["glob"]

_MAGIC = re.compile(r"[*?[]")
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_PASSED_OVER = (*_NOT_THERE, errno.EACCES, errno.EPERM)


class _Entry(NamedTuple):
    path: str
    directory: bool  # itself, not by a link
    link: bool


def glob(handle: Handle, pattern: str) -> list[str]:
    """Return the paths that fit, in order; see ``Files.glob``."""
    handle.check()
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    search = _Search(handle, only_directories=pattern.endswith("/"))
    return sorted(set(search.below("", parts)))


class _Search:
    def __init__(self, handle: Handle, *, only_directories: bool) -> None:
        self._handle = handle
        self._only_directories = only_directories

    def below(self, base: str, parts: list[str]) -> Iterator[str]:
        """Yield what fits the parts below a path, which has no slash at its end."""
        if not parts:
            if self._there(base):
                yield base or "/"
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            while rest[:1] == ["**"]:
                rest = rest[1:]
            for directory in self._directories(base):
                yield from self.below(directory, rest) if rest else self._all(directory)
        elif _MAGIC.search(part):
            yield from self._fitting(base, re.compile(fnmatch.translate(part)).match, rest)
        else:
            yield from self.below(f"{base}/{part}", rest)

    def _fitting(self, base: str, fits: Callable[[str], object], rest: list[str]) -> Iterator[str]:
        for entry in self._entries(base):
            if not fits(entry.path.rpartition("/")[2]):
                continue
            if not rest and not (self._only_directories and entry.link):
                if entry.directory or not self._only_directories:
                    yield entry.path
            elif entry.directory or entry.link:
                yield from self.below(entry.path, rest)

    def _directories(self, base: str) -> Iterator[str]:
        """Yield a directory and all below it."""
        waiting = [base]
        while waiting:
            directory = waiting.pop()
            yield directory
            waiting += [entry.path for entry in self._entries(directory) if entry.directory]

    def _all(self, directory: str) -> Iterator[str]:
        """Yield a directory, and what is in it but is none: the others come by themselves."""
        if self._there(directory):
            yield directory or "/"
        if not self._only_directories:
            yield from (entry.path for entry in self._entries(directory) if not entry.directory)

    def _there(self, path: str) -> bool:
        flags = os.O_PATH | (os.O_DIRECTORY if self._only_directories else os.O_NOFOLLOW)
        try:
            os.close(self._handle.agent.open(os.fsencode(path or "/"), flags))
        except OSError as error:
            if error.errno not in _PASSED_OVER:
                raise
            return False
        return True

    def _entries(self, directory: str) -> list[_Entry]:
        try:
            fd = self._handle.agent.open(os.fsencode(directory or "/"), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _PASSED_OVER:
                raise
            return []
        try:
            with os.scandir(fd) as entries:
                return [
                    _Entry(f"{directory}/{entry.name}", entry.is_dir(follow_symlinks=False), entry.is_symlink())
                    for entry in entries
                ]
        finally:
            os.close(fd)
