"""Which root file systems a lab has, so that each is built once."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.rootfs.source import Rootfs

__all__ = ["Holdings", "of"]

_IDLE_MAX = 8  # that nobody refers to and that are kept, since the next test may ask for one again
_IDLE_BYTES_MAX = 1 << 29  # what these may take of the machine's memory


class _Holding:
    """One root file system of a lab."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while it is built: who wants the same waits, others do not
        self.number = 0  # none yet
        self.size = 0  # bytes of memory
        self.users: list[weakref.ref[Rootfs]] = []

    def used(self) -> bool:
        """Return whether somebody refers to it, or is building it."""
        self.users = [user for user in self.users if user() is not None]
        return bool(self.users)


class Holdings:
    """The root file systems of one lab, by what they are made of. Safe to use from several threads."""

    def __init__(self, lab: Lab) -> None:
        """Begin with none."""
        self._lab = weakref.ref(lab)
        self._lock = threading.Lock()
        self._all: dict[Hashable, _Holding] = {}  # the one used last is the last

    def number(self, rootfs: Rootfs) -> int:
        """Return the lab's number of a root file system; build it when it is not there. Raises what that raises."""
        lab = self._lab()
        if lab is None:
            raise PoorContainerError("the lab is no more")
        key = (type(rootfs), rootfs.readonly, rootfs.key())
        with self._lock:
            holding = self._all.pop(key, None) or _Holding()
            self._all[key] = holding
            if all(user() is not rootfs for user in holding.users):
                holding.users.append(weakref.ref(rootfs))
        with holding.lock:
            if not holding.number:
                try:
                    holding.number, holding.size = _build(lab, rootfs)
                except BaseException:
                    with self._lock:
                        if self._all.get(key) is holding:
                            del self._all[key]
                    raise
                self._drop_idle(lab)
        return holding.number

    def _drop_idle(self, lab: Lab) -> None:
        """Give up what nobody refers to, the least recently used first, until little enough is kept."""
        dropped: list[_Holding] = []
        with self._lock:
            idle = [(key, holding) for key, holding in self._all.items() if not holding.used()]
            size = sum(holding.size for _, holding in idle)
            for count, (key, holding) in enumerate(idle):
                if len(idle) - count <= _IDLE_MAX and size <= _IDLE_BYTES_MAX:
                    break
                size -= holding.size
                dropped.append(self._all.pop(key))
        for holding in dropped:
            lab.drop_rootfs(holding.number)


def _build(lab: Lab, rootfs: Rootfs) -> tuple[int, int]:
    """Let the lab have a root file system; return its number and the bytes of memory that it takes."""
    path = rootfs.directory()
    number, fd = lab.add_rootfs(path, rootfs.binds(), readonly=rootfs.readonly)
    try:
        if path is not None:
            return number, 0
        rootfs.fill(fd)
        space = os.fstatvfs(fd)
        return number, (space.f_blocks - space.f_bfree) * space.f_frsize
    except BaseException as error:
        with contextlib.suppress(LabError):  # what went wrong before is told
            lab.drop_rootfs(number)
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            remedy = "it is kept in memory, of which the lab may use half of the machine's: take a smaller one"
            raise LabError("fill the root file system", rootfs.description, error.errno, remedy) from error
        raise
    finally:
        if fd >= 0:
            os.close(fd)


_guard = threading.Lock()
_holdings: weakref.WeakKeyDictionary[Lab, Holdings] = weakref.WeakKeyDictionary()


def of(lab: Lab) -> Holdings:
    """Return what a lab has."""
    with _guard:
        found = _holdings.get(lab)
        if found is None:
            found = _holdings[lab] = Holdings(lab)
        return found


def _forget_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent's may have held it
    _guard = threading.Lock()
    _holdings.clear()


os.register_at_fork(after_in_child=_forget_in_child)
