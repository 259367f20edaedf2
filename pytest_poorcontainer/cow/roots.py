"""What labs have of a tree as the root of containers, and which containers have it."""

from __future__ import annotations

import contextlib
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

    ``generation`` changes when a container that is asked for later would get another mount of the tree.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.generation = 0
        self._numbers: weakref.WeakKeyDictionary[Lab, dict[bool, int]] = weakref.WeakKeyDictionary()
        self._handles: list[weakref.ref[Handle]] = []

    def number(self, lab: Lab, path: str, stage: int, *, readonly: bool) -> int:
        """Return a lab's number of the tree at ``path``, of the stage ``stage`` or (-1) of the machine.

        Raises :class:`LabError`.
        """
        numbers = self._numbers.setdefault(lab, {})
        if readonly not in numbers:
            numbers[readonly], _ = lab.add_rootfs(path, readonly=readonly, tree=stage)
        return numbers[readonly]

    def used(self, handles: Sequence[Handle]) -> None:
        """Note which containers have it."""
        self._handles += map(weakref.ref, handles)

    def users(self) -> list[str]:
        """Return the names of the containers that have it and are not closed."""
        self._handles = [each for each in self._handles if (handle := each()) is not None and not handle.closed]
        return [handle.name for each in self._handles if (handle := each()) is not None]

    def give_up(self) -> None:
        """Let no lab have it any more: a template holds a mount. Containers keep theirs."""
        self.generation += 1
        for lab, numbers in list(self._numbers.items()):
            for number in numbers.values():
                with contextlib.suppress(LabError):  # a lab that has died has none
                    if lab.alive():
                        lab.drop_rootfs(number)
        self._numbers.clear()
