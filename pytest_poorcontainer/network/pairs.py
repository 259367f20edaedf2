"""Pairs: two hosts and the cable between them, made by the lab in one request, and ahead of time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.container.settings import Settings
from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.lab import Lab
from pytest_poorcontainer.lab.names import check_name
from pytest_poorcontainer.network.host import Host
from pytest_poorcontainer.network.link import Link
from pytest_poorcontainer.network.prefetch import STOCK_MAX, Stock, cable_of, created, order, taken
from pytest_poorcontainer.network.recording import await_recorder, plug, retire, start_recorder, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from pytest_poorcontainer.container.settings import Rlimits
    from pytest_poorcontainer.rootfs import Source

__all__ = ["STOCK_MAX", "HostPair", "Pairs"]


class HostPair:
    """Two hosts and the cable between them: ``a``, ``b`` and ``link``. It unpacks: ``primary, replica = pair``."""

    def __init__(self, a: Host, b: Host, link: Link, forget: Callable[[HostPair], None] | None = None) -> None:
        """Own the hosts; ``forget`` is told when they are closed."""
        self.a = a
        self.b = b
        self.link = link
        self._forget = forget

    def __iter__(self) -> Iterator[Host]:
        """Return the two hosts, in the order in which they were named."""
        return iter((self.a, self.b))

    @property
    def closed(self) -> bool:
        """Whether both hosts are closed."""
        return self.a.closed and self.b.closed

    def close(self) -> None:
        """End both hosts with all that runs in them; return when every process is dead. Idempotent.

        Then raises :class:`WireOverflow` or :class:`WireDied` if its wire lost what it was not to lose.
        """
        wrong = self.link.end()
        try:
            self.a.close_with(self.b)
        finally:
            retire((self.a, self.b))
            forget, self._forget = self._forget, None
            if forget is not None:
                forget(self)
        if wrong is not None:
            raise wrong

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show the link, which names both hosts."""
        return f"<HostPair {self.a.name}, {self.b.name} ({'closed' if self.closed else self.link.state})>"


class Pairs:
    """Makes pairs of hosts, and closes them. Safe to use from several threads at once."""

    def __init__(
        self, *, basetemp: Path | None = None, rootdir: Path | None = None, record: bool | int | str = True
    ) -> None:
        """Make nothing yet; the first host starts this process's lab.

        ``basetemp`` (read-write) and ``rootdir`` (read-only) are directories that the hosts see at the same paths. With
        ``record`` the newest frames of each host are kept, for who wants to know what went wrong (docs/capture.md):
        True, or how many bytes for each interface.
        """
        self._basetemp = basetemp
        self._rootdir = rootdir
        self._record = stored(record)
        self._pairs: set[HostPair] = set()
        self._stock = Stock()
        self._lock = threading.Lock()
        self._closed = False

    def pair(
        self,
        a: str = "a",
        b: str = "b",
        *,
        rootfs: Source | None = None,
        readonly: bool = False,
        memory: int | str | None = None,
        pids: int | None = None,
        cpu: float | None = None,
        capabilities: Sequence[str] | None = None,
        rlimits: Rlimits | None = None,
    ) -> HostPair:
        """Return two new hosts of these names, joined by a cable of their own and ready for a first connect.

        The other arguments are those of :class:`Container`, for each of the two.

        Raises :class:`UsageError` for a name that is no host name, for one name twice and for arguments that are none,
        :class:`Unavailable` for a limit that this machine cannot keep, :class:`LabError` with the step that failed;
        then nothing of it is left.
        """
        settings = Settings.of(
            rootfs=rootfs,
            readonly=readonly,
            memory=memory,
            pids=pids,
            cpu=cpu,
            capabilities=capabilities,
            rlimits=rlimits,
        )
        return self.pair_of((a, b), settings)

    def pair_of(self, names: Sequence[str], settings: Settings) -> HostPair:
        """Do what :meth:`pair` does, with settings that were made already."""
        a, b = _checked(names)
        if self._closed:
            raise PoorContainerError("cannot make a pair: the network is closed")
        made = taken(self._stock, (a, b), settings) or created(self._lab(), (a, b), settings)
        first, second = (Host(handle, made.named[handle.name], made.named) for handle in made.handles)
        plug(made.number, (first, second))
        if self._record:
            await_recorder(made.lab)
        link = Link(made.lab, (a, b), lambda: cable_of(made, (first, second)))
        first.cables.append(link)
        second.cables.append(link)
        pair = HostPair(first, second, link, self._pairs.discard)
        with self._lock:
            self._pairs.add(pair)
        return pair

    def prefetch(self, a: str = "a", b: str = "b", settings: Settings | None = None) -> None:
        """Let a pair be built while the caller does something else; the next :meth:`pair` takes it and need not wait.

        Right names save a little: another name is given to it when it is taken. Only a pair of the same ``settings``
        (:meth:`Settings.of`) is taken. At most :data:`STOCK_MAX` wait for that, more are not built. What goes wrong is
        told to who takes it: then it is built anew, with its own error.
        """
        names = _checked((a, b))
        if not self._closed:
            order(self._stock, self._lab(), names, settings or Settings())

    def prefetch_just(self, wanted: Sequence[tuple[Sequence[str], Settings]]) -> None:
        """Let these be built that are not there yet; what nobody wants and what has no room beside them is ended."""
        if self._closed:
            return
        lab = self._lab()
        for place in self._stock.missing([settings for _, settings in wanted]):
            names, settings = wanted[place]
            order(self._stock, lab, _checked(names), settings)

    def _lab(self) -> Lab:
        lab = Lab.current(self._basetemp, self._rootdir)
        if self._record:
            start_recorder(lab, self._record)
        return lab

    @property
    def prefetched(self) -> int:
        """How many pairs wait to be taken, or are being built for that."""
        return len(self._stock)

    def close(self) -> None:
        """Close every pair that is still open, and those that were built ahead. Idempotent."""
        self._closed = True
        with self._lock:
            pairs = list(self._pairs)
        try:
            self._stock.close()
        finally:
            for pair in pairs:
                pair.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(names: Sequence[str]) -> tuple[str, str]:
    """Return the two names of a pair. Raises :class:`UsageError`."""
    a, b = (check_name(name) for name in names)
    if a.lower() == b.lower():
        raise UsageError(f"the two hosts of a pair have the same name {a!r}: give them different ones")
    return a, b
