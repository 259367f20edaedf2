"""Places of containers where a tree is mounted."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from pytest_poorcontainer.lab.protocol import Field, Mount, Op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Attached"]


class Attached:
    """A place where a container sees a tree, from now on until :meth:`remove`, or the container's end.

    ``number`` is the kernel's of the mount, another one each time that it is mounted; ``gone`` says that it was
    removed. Raises :class:`LabError`.
    """

    def __init__(self, handle: Handle, target: str | bytes, source: str, stage: Sequence[int] = ()) -> None:
        """Mount ``source``, a directory of the machine, or of the stage whose descriptor is given."""
        self._handle = weakref.ref(handle)
        self._target = target
        self._source = source
        self._stage = stage
        self.number = 0
        self.gone = False
        self.mount()

    @property
    def live(self) -> bool:
        """Whether it is there, unless what it belongs to is dead."""
        handle = self._handle()
        return not self.gone and handle is not None and not handle.closed

    def mount(self) -> None:
        """Mount it, anew if it was unmounted."""
        self.number = self._ask(Mount.BIND, [(Field.SOURCE, self._source)], "mount a tree", self._stage)[0]

    def unmount(self) -> None:
        """Unmount it for a while."""
        self._ask(Mount.UNMOUNT, [(Field.VALUE, self.number)], "unmount a tree")

    def remove(self) -> None:
        """Unmount it for good, also while it is in use. Idempotent."""
        if self.live:
            self.unmount()
        self.gone = True

    def _ask(
        self, kind: Mount, more: Sequence[tuple[int, int | str | bytes]], operation: str, fds: Sequence[int] = ()
    ) -> list[int]:
        handle = self._handle()
        if handle is None:
            return [0]
        fields = ((Field.ID, handle.id), (Field.KIND, kind), (Field.TARGET, self._target), *more)
        return handle.lab.ask(Op.MOUNT, fields, operation, fds).numbers(Field.VALUE)
