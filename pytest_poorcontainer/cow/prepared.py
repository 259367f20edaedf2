"""Data that is made once, and that every test starts on with a private tree of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING, Generic, TypeVar

from pytest_poorcontainer.cow import store
from pytest_poorcontainer.cow.copying import remove_directory
from pytest_poorcontainer.cow.tree import Stored, Tree
from pytest_poorcontainer.cow.upper import UPPER
from pytest_poorcontainer.errors import PoorContainerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Name = str | os.PathLike[str]

__all__ = ["Prepared"]

Made = TypeVar("Made", bound=Tree)
_DONE = "done"
_USERS = "users"


class Prepared(Generic[Made]):
    """What several processes share that were given the same ``directory``: each thing is built by the first who asks.

    The others wait for it (flock(2)); who dies while it builds leaves nothing that counts. The directory is removed by
    the last process that calls :meth:`close`.
    """

    def __init__(self, directory: str, make: Callable[..., Made]) -> None:
        """Use a directory, made if need be; ``make`` makes a tree, with the arguments of :class:`Tree`."""
        self._directory = directory
        self._make = make
        self._builders: dict[str, object] = {}
        self._users = -1

    def stored(
        self,
        name: str,
        build: Callable[[Made], object],
        source: Name | None = None,
        place: Name | None = None,
        backend: str = "auto",
    ) -> Stored:
        """Return what ``build(tree)`` has made of a tree of ``source`` (an empty directory unless given).

        The first that asks for ``name`` calls it; the others wait. ``place`` is where commands see the tree. Raises
        what ``build`` raises, and then the next one tries again; :class:`UsageError` for a name that is already
        another's.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,100}", name) or name in {".", ".."}:
            raise UsageError(f"a name of prepared data is a word such as 'db-with-schema', not {name!r}")
        builder = (getattr(build, "__module__", ""), getattr(build, "__qualname__", repr(build)))
        if self._builders.setdefault(name, builder) != builder:
            raise UsageError(f"prepared data {name!r} is built by {self._builders[name]} already: choose another name")
        self._join()
        with self._locked(name) as here:
            if not os.path.exists(os.path.join(here, _DONE)):
                self._build(here, build, source, place, backend)
            found = store.read(os.path.join(here, "store"))
        if found is None:
            raise PoorContainerError(f"prepared data {name!r} has vanished from {here}: somebody removes files there")
        top = os.path.join(here, "store", UPPER)
        below = [] if found.backend in {"copy", "reflink"} else found.lowers
        return Stored((top, *below), found.place)

    def _build(
        self, here: str, build: Callable[[Made], object], source: Name | None, place: Name | None, backend: str
    ) -> None:
        directory, empty = os.path.join(here, "store"), os.path.join(here, "data")
        remove_directory(directory)  # of one who died while it built
        os.makedirs(empty, 0o755, exist_ok=True)
        tree = self._make(empty if source is None else source, upper=directory, place=place, backend=backend)
        try:
            with tree:
                build(tree)
        except BaseException:
            remove_directory(directory)
            raise
        with open(os.path.join(here, _DONE), "w", encoding="ascii"):
            pass

    def _join(self) -> None:
        """Be one of those who use the directory, until our end."""
        if self._users >= 0:
            return
        while True:
            os.makedirs(self._directory, 0o755, exist_ok=True)
            path = os.path.join(self._directory, _USERS)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # the last user has removed it just now
            fcntl.flock(fd, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    self._users = fd
                    return
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[str]:
        here = os.path.join(self._directory, name)
        os.makedirs(here, 0o755, exist_ok=True)
        fd = os.open(os.path.join(here, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield here
        finally:
            os.close(fd)

    def close(self) -> None:
        """Use it no more; the last user removes all of it. Idempotent."""
        fd, self._users = self._users, -1
        if fd < 0:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another one is the last
        else:
            remove_directory(self._directory)
        finally:
            os.close(fd)
