"""Containers that are built before they are wanted, while something else runs."""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import LabDied

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import TypeAlias

    from pytest_poorcontainer.container.settings import Settings
    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.lab.order import Order

    Kind: TypeAlias = tuple[Settings, Hashable]
    """What two containers must have in common to be interchangeable: their settings, and what their root is now."""

__all__ = ["STOCK_MAX", "Ahead", "Stock"]

STOCK_MAX = 2
"""How much is built ahead at most: one that waits, and one that is being built while that is taken."""


class Ahead(NamedTuple):
    """What was ordered: one container, or the two at the ends of link number ``link``."""

    lab: Lab
    order: Order
    link: int = 0


class Stock:
    """What waits to be taken. Safe to use from several threads at once.

    Only who wants containers of the very same settings gets one; another name is given to it when it is taken.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._waiting: collections.deque[tuple[Kind, Ahead]] = collections.deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many there are, or will be."""
        return len(self._waiting)

    def order(self, settings: Settings, ask: Callable[[], Ahead | None]) -> None:
        """Let ``ask`` order one more, unless there are enough; one of other settings makes room for it."""
        kind = _kind(settings)
        with self._lock:
            other = None
            if len(self._waiting) >= STOCK_MAX:
                other = next((entry for entry in self._waiting if entry[0] != kind), None)
                if other is None:
                    return
                self._waiting.remove(other)
            ahead = ask()
            if ahead is not None:
                self._waiting.append((kind, ahead))
        if other is not None:
            _end(other[1])

    def missing(self, wanted: Sequence[Settings]) -> list[int]:
        """Return the places of those among ``wanted`` for which nothing is there; of the rest, end what has no room."""
        with self._lock:
            spare = list(self._waiting)
            missing = []
            for place, kind in enumerate(map(_kind, wanted)):
                found = next((entry for entry in spare if entry[0] == kind), None)
                if found is None:
                    missing.append(place)
                else:
                    spare.remove(found)
            too_many = spare[: max(len(self._waiting) + len(missing) - STOCK_MAX, 0)]
            for entry in too_many:
                self._waiting.remove(entry)
        for _, ahead in too_many:
            _end(ahead)
        return missing

    def take(self, settings: Settings, names: Sequence[str]) -> Ahead | None:
        """Return one with these settings as soon as it is built, yours from then on; None when none is there and lives.

        Of several, one that was built under these names; who wants other names than it has gives them to it.
        """
        if not self._waiting:
            return None
        kind = _kind(settings)
        while (ahead := self._pick(kind, list(names))) is not None:
            if _is_usable(ahead):
                ahead.lab.claim(ahead.order)
                return ahead
            _end(ahead)
        return None

    def _pick(self, kind: Kind, names: list[str]) -> Ahead | None:
        """Take out the one of these names, or else the oldest."""
        with self._lock:
            fitting = [entry for entry in self._waiting if entry[0] == kind]
            if not fitting:
                return None
            picked = next((entry for entry in fitting if entry[1].order.names == names), fitting[0])
            self._waiting.remove(picked)
            return picked[1]

    def close(self) -> None:
        """End those that nobody took."""
        while self._waiting:
            _end(self._waiting.popleft()[1])


def _kind(settings: Settings) -> Kind:
    """Return what a container of these settings has to have. Raises what the source of its root raises."""
    return settings, None if settings.rootfs is None else settings.rootfs.key()


def _is_usable(ahead: Ahead) -> bool:
    """Wait until the order is answered, and return whether what it tells of lives. With a lab all that it made dies."""
    if ahead.lab.closed or ahead.lab.foreign():
        return False
    try:
        ahead.lab.await_order(ahead.order)
    except LabDied:
        return False
    return ahead.order.complete and not any(handle.has_ended() for handle in ahead.order.handles)


def _end(ahead: Ahead) -> None:
    """End what was built of an order. With its lab it has ended already."""
    if not ahead.lab.alive():
        return
    try:
        ahead.lab.await_order(ahead.order)
        ahead.lab.end([handle.id for handle in ahead.order.handles])
    except LabDied:
        return
    for handle in ahead.order.handles:
        handle.close()
