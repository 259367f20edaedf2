"""What is asked of the lab for mounts, in one place: preload/lab/mount_request.h has the other side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.lab.protocol import Field, Mount, MountFlag, Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.lab.handle import Handle
    from pytest_poorcontainer.lab.protocol import Message

__all__ = ["Limits", "Place", "Requests", "Target", "flags"]

Target = bytes


class Place(NamedTuple):
    """What is seen at a path: the number of the mount that it is on, and whether it is that one's root."""

    number: int
    is_root: bool


class Limits(NamedTuple):
    """What a tmpfs may hold: bytes, and files and directories; 0 is no limit."""

    size: int
    inodes: int


def flags(*, readonly: bool = False, noexec: bool = False) -> int:
    """Return attributes of a mount as the lab takes them."""
    return (MountFlag.READONLY if readonly else 0) | (MountFlag.NOEXEC if noexec else 0)


class Requests:
    """Asks for mounts in one container. Every method raises :class:`LabError` with the step that failed."""

    def __init__(self, handle: Handle) -> None:
        """Ask the lab of this container."""
        self._handle = handle

    def attach(
        self,
        kind: Mount,
        target: Target,
        *,
        source: bytes | None = None,
        options: Sequence[str] = (),
        flags: int = 0,
        covers: Iterable[int] = (),
    ) -> tuple[int, int, int]:
        """Mount something; return the mount's number, that of the cover it needed or 0, and a descriptor or -1.

        A cover is an overlay over a directory in which the mount point could not be made otherwise; ``covers`` are
        those that there are. The descriptor is of the tmpfs that an overlay writes to.
        """
        fields: list[tuple[int, int | str | bytes]] = [(Field.FLAGS, flags)]
        if source is not None:
            fields.append((Field.SOURCE, source))
        fields += [(Field.OPTIONS, option) for option in options]
        fields += [(Field.VALUE, cover) for cover in covers]
        answer = self._ask(kind, target, fields)
        number, cover = answer.numbers(Field.VALUE)
        return number, cover, answer.fds.pop() if answer.fds else -1

    def look(self, target: Target) -> tuple[Place, int]:
        """Return what is seen at a path, all links followed, and a descriptor of it (O_PATH)."""
        answer = self._ask(Mount.LOOK, target)
        number, is_root, _, _ = answer.numbers(Field.VALUE)
        return Place(number, bool(is_root)), answer.fds.pop()

    def place(self, target: Target) -> Place:
        """Return what is seen at a path."""
        place, fd = self.look(target)
        os.close(fd)
        return place

    def change(self, target: Target, number: int, attributes: int, *, clear: bool) -> None:
        """Give the mount of this number attributes, or take them from it."""
        wanted = attributes | (MountFlag.CLEAR if clear else 0)
        self._ask(Mount.CHANGE, target, ((Field.VALUE, number), (Field.FLAGS, wanted)))

    def resize(self, target: Target, fd: int, options: Iterable[str]) -> Limits:
        """Give the tmpfs that ``fd`` is on other limits; return those that it had."""
        answer = self._ask(Mount.RESIZE, target, [(Field.OPTIONS, option) for option in options], (fd,))
        return Limits(*answer.numbers(Field.VALUE))

    def fill(self, target: Target, fd: int, *, inodes: bool) -> tuple[Limits, int]:
        """Limit the tmpfs that ``fd`` is on to what it holds now.

        Returns the limits that it had, and a descriptor that has to be kept until it gets them back, or -1.
        """
        wanted = ((Field.FLAGS, MountFlag.INODES if inodes else 0),)
        answer = self._ask(Mount.FILL, target, wanted, (fd,))
        return Limits(*answer.numbers(Field.VALUE)), answer.fds.pop() if answer.fds else -1

    def detach(self, target: Target, number: int) -> None:
        """Unmount the mount of this number, with all that is mounted below it, also while it is in use."""
        self._ask(Mount.UNMOUNT, target, ((Field.VALUE, number),))

    def _ask(
        self,
        kind: Mount,
        target: Target,
        fields: Iterable[tuple[int, int | str | bytes]] = (),
        fds: Sequence[int] = (),
    ) -> Message:
        self._handle.check()
        first = ((Field.ID, self._handle.id), (Field.KIND, kind), (Field.TARGET, target))
        operation = f"ask for a mount in {self._handle.name}"
        return self._handle.lab.ask(Op.MOUNT, (*first, *fields), operation, fds)
