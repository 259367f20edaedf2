"""What can be frozen, more than once, and is thawed as a whole: a host, a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_poorcontainer.container.freezing import Frozen

__all__ = ["Freezable"]


class Freezable:
    """Each freeze of it ends for itself; :meth:`thaw` ends them all."""

    _freezes: tuple[Frozen, ...] = ()

    def _freeze(self, what: str, pids: Callable[[], Iterable[int]]) -> Frozen:
        """Stop these processes, and return what lets them go on. Raises :class:`LabError` when they do not stop."""
        from pytest_poorcontainer.container.freezing import freeze  # noqa: PLC0415 - few tests need it

        frozen = freeze(what, pids)
        self._freezes = (*(one for one in self._freezes if one.active), frozen)
        return frozen

    def thaw(self) -> None:
        """Let go on what its ``freeze()`` has stopped, but for what is frozen with something else too. Idempotent."""
        freezes, self._freezes = self._freezes, ()
        for frozen in freezes:
            frozen.thaw()
