"""A copy-on-write tree as the root of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.rootfs import Rootfs

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pytest_poorcontainer.cow import Tree
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["TreeRoot"]


class TreeRoot(Rootfs):
    """The tree itself: what containers change in their root is a change of the tree, and all who have it see it.

    With ``readonly`` it is below an overlay that nobody may change, like any other root.
    """

    def __init__(self, tree: Tree, *, readonly: bool = False) -> None:
        """Take a tree; one that other trees stand on can be had with ``readonly`` only. Raises :class:`UsageError`."""
        if tree.frozen and not readonly:
            raise UsageError(
                f"rootfs={tree!r}: other trees stand on it, so it must not change: make a tree on it, "
                "or take readonly=True"
            )
        super().__init__(tree, readonly=readonly)
        self._tree = tree

    @property
    def description(self) -> str:
        """What it is of, and by which backend."""
        return f"tree of {self._tree.place}, {self._tree.backend}"

    def key(self) -> Hashable:
        """Return which mount of the tree a container would get."""
        return self._tree, self._tree.roots.generation

    def number(self, lab: Lab) -> int:
        """Return the lab's number of it. Raises :class:`UsageError` on a backend of which it cannot be had."""
        return self._tree.root(lab, readonly=self.readonly)

    def created(self, handles: Sequence[Handle]) -> None:
        """Note which containers have it, so that nothing is done to the tree that would take it from under them."""
        self._tree.roots.used(handles)
