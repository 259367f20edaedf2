"""A cable between two hosts, which can be cut and unplugged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from pytest_poorcontainer.container.protocol import Action
from pytest_poorcontainer.errors import PoorContainerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pytest_poorcontainer.container import Lab

__all__ = ["FabricMedium", "Link", "Medium", "Until"]

BOTH_ENDS = 3


class Medium(Protocol):
    """What a link is made of. ``ends`` is a bit mask: 1 for what the first host sends, 2 for the second's."""

    def act(self, action: Action, ends: int) -> None:
        """Do it, and return when it is in force."""


class FabricMedium:
    """Two plugs in the lab's fabric that redirect to each other (``preload/lab/link.h``)."""

    def __init__(self, lab: Lab, number: int) -> None:
        """Speak of link ``number`` of this lab."""
        self._lab = lab
        self._number = number

    def act(self, action: Action, ends: int) -> None:
        """Do it; the lab answers when the kernel has acknowledged it."""
        self._lab.link(self._number, action, ends)


class Until:
    """A fault that is in force, and that ends with the block if it is used as a context manager."""

    def __init__(self, link: Link, undo: Callable[[], None]) -> None:
        """Remember how it is undone."""
        self._link = link
        self._undo = undo

    def __enter__(self) -> Link:
        return self._link

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._link.closed:
            self._undo()


class Link:
    """A cable. ``state`` is "up", "cut" (silence, though the carrier stays) or "unplugged" (no carrier).

    Whatever is done to it, the hosts keep their interfaces, indexes, addresses, routes and connections, and nothing
    that a host does with its own tc, nft or ip commands undoes it. Safe to use from several threads at once.
    """

    def __init__(self, medium: Medium, names: tuple[str, str]) -> None:
        """Make a link of this medium between the hosts of these names."""
        self.medium = medium
        self.names = names
        self.closed = False
        self._cut = False
        self._unplugged = False
        self._lock = threading.RLock()

    @property
    def state(self) -> str:
        """What it looks like: "up", "cut" or "unplugged" (also when it is cut as well)."""
        return "unplugged" if self._unplugged else "cut" if self._cut else "up"

    def cut(self) -> Until:
        """Let nothing pass any more, either way: connections hang until their timeouts, as on a dead switch.

        The carrier stays. Idempotent; undone by :meth:`heal`, or by the end of the block as a context manager.
        """
        self._act(Action.CUT, "_cut", to=True)
        return Until(self, self.heal)

    def heal(self) -> None:
        """Let everything pass again. Idempotent. What was lost meanwhile comes again when its sender repeats it."""
        self._act(Action.HEAL, "_cut", to=False)

    def unplug(self) -> Until:
        """Take the carrier away at both ends: the interfaces stay up (IFF_UP) and lose IFF_RUNNING and LOWER_UP.

        It is what routing and VRRP daemons see when somebody pulls the cable. Idempotent; undone by :meth:`plug`, or
        by the end of the block as a context manager.
        """
        self._act(Action.UNPLUG, "_unplugged", to=True)
        return Until(self, self.plug)

    def plug(self) -> None:
        """Plug it in again, and return when both ends can be used. Idempotent."""
        self._act(Action.PLUG, "_unplugged", to=False)

    def _act(self, action: Action, flag: str, *, to: bool) -> None:
        with self._lock:
            if self.closed:
                raise PoorContainerError(f"cannot {action.name.lower()} {self}: its hosts are closed")
            self.medium.act(action, BOTH_ENDS)
            setattr(self, flag, to)

    def __repr__(self) -> str:
        """Name the two hosts and the state."""
        return f"<Link {self.names[0]} -- {self.names[1]} ({'closed' if self.closed else self.state})>"
