"""Makes containers that stand alone, ahead of the time at which they are wanted if it is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_poorcontainer.container.ahead import Ahead, Stock
from pytest_poorcontainer.container.container import default_hosts
from pytest_poorcontainer.errors import PoorContainerError
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.lab.names import check_name
from pytest_poorcontainer.lab.protocol import Network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_poorcontainer.container.settings import Settings
    from pytest_poorcontainer.lab.handle import Handle

__all__ = ["Maker"]


class Maker:
    """Safe to use from several threads at once.

    ``basetemp`` (read-write) and ``rootdir`` (read-only) are directories that the containers see at the same paths.
    """

    def __init__(self, *, basetemp: Path | None = None, rootdir: Path | None = None) -> None:
        """Begin with nothing; the first container starts this process's lab."""
        self._basetemp = basetemp
        self._rootdir = rootdir
        self._stock = Stock()
        self._closed = False

    def make(self, name: str, settings: Settings) -> Handle:
        """Return a new container, who drops which ends it. Raises what ``Container(...)`` raises."""
        check_name(name)
        if self._closed:
            raise PoorContainerError(f"cannot make the container {name}: its maker is closed")
        ahead = self._stock.take(settings, [name])
        if ahead is None:
            lab = Lab.current(self._basetemp, self._rootdir)
            handles = lab.create([settings.spec(lab, name, _hosts(name, settings))])
        else:
            handles = ahead.order.handles
            if ahead.order.names != [name]:
                handles[0].rename(name, _hosts(name, settings))
        settings.created(handles)
        return handles[0]

    def prefetch_just(self, wanted: Sequence[tuple[str, Settings]]) -> None:
        """Let these be built that are not there yet; what nobody wants and what has no room beside them is ended."""
        if self._closed:
            return
        lab = Lab.current(self._basetemp, self._rootdir)

        def ask() -> Ahead | None:
            order = lab.order([settings.spec(lab, name, _hosts(name, settings))])
            return None if order is None else Ahead(lab, order)

        for place in self._stock.missing([settings for _, settings in wanted]):
            name, settings = wanted[place]
            self._stock.order(settings, ask)

    @property
    def prefetched(self) -> int:
        """How many containers wait to be taken, or are being built for that."""
        return len(self._stock)

    def close(self) -> None:
        """End those that were built ahead and that nobody took. Idempotent."""
        self._closed = True
        self._stock.close()


def _hosts(name: str, settings: Settings) -> str:
    """Return the text of /etc/hosts."""
    return default_hosts(name, "host" if settings.network == Network.HOST else "none")
