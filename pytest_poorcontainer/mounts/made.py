"""Which mounts of a container are ours: what was asked for, and where it stands now."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.lab import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_poorcontainer.lab.protocol import Mount
    from pytest_poorcontainer.mounts.requests import Requests, Target

__all__ = ["Made", "MadeList"]


class Made:
    """A mount that was asked for.

    ``upper`` is a descriptor of the tmpfs that an overlay writes to, else -1; ``tree`` is what has mounted a tree, else
    None. ``gone`` says that it was unmounted.
    """

    __slots__ = ("_number", "gone", "target", "tree", "upper")

    def __init__(self, target: Target, number: int, upper: int = -1, tree: Any = None) -> None:
        """Note what the lab has made; the descriptor is ours from now on."""
        self.target = target
        self._number = number
        self.upper = upper
        self.tree = tree
        self.gone = False
        if upper >= 0:
            forks.guard(upper)

    @property
    def number(self) -> int:
        """The kernel's number of it; a tree is mounted anew when it is reset."""
        return self._number if self.tree is None else int(self.tree.number)

    @number.setter
    def number(self, number: int) -> None:
        if self.tree is None:
            self._number = number
        else:
            self.tree.number = number

    def covers(self, other: Made) -> bool:
        """Return whether a mount that was made before this one is out of sight since."""
        return other.target == self.target or other.target.startswith(self.target.rstrip(b"/") + b"/")

    def release(self) -> None:
        """Note that it is no more. Idempotent."""
        self.gone = True
        if self.upper >= 0:
            upper, self.upper = self.upper, -1
            forks.expose(upper)
            os.close(upper)

    def __del__(self) -> None:
        """Close the descriptor when nobody refers to it any more."""
        self.release()


class MadeList:
    """The mounts of a container that were asked for, oldest first. Safe to use from several threads at once."""

    def __init__(self, requests: Requests) -> None:
        """Start without any."""
        self._requests = requests
        self._made: list[Made] = []
        self._covers: list[int] = []
        self.lock = threading.RLock()

    def numbers(self) -> set[int]:
        """Return their numbers."""
        return {made.number for made in self._made}

    def of(self, number: int) -> Made | None:
        """Return the one of this number, if it is ours."""
        return next((made for made in self._made if made.number == number), None)

    def attach(
        self,
        kind: Mount,
        target: Target,
        *,
        source: bytes | None = None,
        options: tuple[str, ...] = (),
        flags: int = 0,
        over: bool = False,
    ) -> Made:
        """Mount something and note it; with ``over`` it shows what was mounted below its target as before."""
        with self.lock:
            number, cover, upper = self._requests.attach(
                kind, target, source=source, options=options, flags=flags, covers=self._covers
            )
            made = Made(target, number, upper)
            if cover:
                self._covers.append(cover)
            if cover or over:
                self._find_again(made if over else None)
            self._made.append(made)
            return made

    def adopt(self, target: Target, attach: Callable[[], Any]) -> Made:
        """Note a tree that ``attach`` mounts, and returns what has ``number`` and ``remove()``."""
        with self.lock:
            made = Made(target, 0, tree=attach())
            self._find_again()
            self._made.append(made)
            return made

    def detach(self, made: Made) -> None:
        """Unmount it, and with it what was mounted on it later. Raises :class:`LabError`."""
        with self.lock:
            if made.gone:
                return
            if made.tree is None:
                self._requests.detach(made.target, made.number)
            else:
                made.tree.remove()
            later = self._made[self._made.index(made) + 1 :]
            for one in (made, *(one for one in later if made.covers(one))):
                self._made.remove(one)
                one.release()
            self._find_again()

    def _find_again(self, over: Made | None = None) -> None:
        """Note the numbers of mounts that were taken along, as clones, when something was put over a place above."""
        for position, made in enumerate(self._made):
            later = self._made[position + 1 :]
            if any(one.covers(made) for one in later) or (over is not None and over.target == made.target):
                continue
            try:
                place = self._requests.place(made.target)
            except LabError:
                continue  # out of sight; it is in the table again when what hides it goes
            if place.is_root:
                made.number = place.number
