"""What labs have of a tree as the root of containers, and which containers have it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Roots"]


class Roots:
    """The root file systems that one tree is, in each lab: its own, or read-only below an overlay.

    ``generation`` changes when a container that is asked for later would get another mount of the tree. Safe to use
    from several threads at once.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.generation = 0
        self._lock = threading.Lock()
        self._numbers: weakref.WeakKeyDictionary[Lab, dict[bool, int]] = weakref.WeakKeyDictionary()
        self._handles: list[weakref.ref[Handle]] = []

    def number(self, lab: Lab, path: str, stage: int, *, readonly: bool) -> int:
        """Return a lab's number of the tree at ``path``, of the stage ``stage`` or (-1) of the machine.

        Raises :class:`LabError`.
        """
        with self._lock:
            numbers = self._numbers.setdefault(lab, {})
            if readonly not in numbers:
                numbers[readonly], _ = lab.add_rootfs(path, readonly=readonly, tree=stage)
            return numbers[readonly]

    def used(self, handles: Sequence[Handle]) -> None:
        """Note which containers have it."""
        with self._lock:
            self._handles += map(weakref.ref, handles)

    def users(self) -> list[str]:
        """Return the names of the containers that have it and are not closed."""
        with self._lock:
            live = [handle for each in self._handles if (handle := each()) is not None and not handle.closed]
            self._handles = list(map(weakref.ref, live))
            return [handle.name for handle in live]

    def give_up(self) -> None:
        """Let no lab have it any more: a template holds a mount. Containers keep theirs."""
        with self._lock:
            self.generation += 1
            for lab, numbers in list(self._numbers.items()):
                for number in numbers.values():
                    with contextlib.suppress(LabError):  # a lab that has died has none
                        if lab.alive():
                            lab.drop_rootfs(number)
            self._numbers.clear()
