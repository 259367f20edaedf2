"""Networks: hosts, and the cables between them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_poorcontainer.container import Lab, check_name
from pytest_poorcontainer.container.lab import Spec
from pytest_poorcontainer.errors import PoorContainerError, UsageError
from pytest_poorcontainer.network.addresses import Addresses, hosts_text
from pytest_poorcontainer.network.host import INTERFACE, Host
from pytest_poorcontainer.network.link import FabricMedium, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["HostPair", "Network"]


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
        """End both hosts with all that runs in them; return when every process is dead. Idempotent."""
        self.link.closed = True
        try:
            self.a.close_with(self.b)
        finally:
            forget, self._forget = self._forget, None
            if forget is not None:
                forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show the link, which names both hosts."""
        return f"<HostPair {self.a.name}, {self.b.name} ({'closed' if self.closed else self.link.state})>"


class Network:
    """Makes hosts joined by cables, and closes them. Safe to use from several threads at once.

    ``basetemp`` (read-write) and ``rootdir`` (read-only) are directories that the hosts see at the same paths.
    """

    def __init__(self, *, basetemp: Path | None = None, rootdir: Path | None = None) -> None:
        """Make an empty network; the first pair starts this process's lab."""
        self._basetemp = basetemp
        self._rootdir = rootdir
        self._pairs: set[HostPair] = set()
        self._lock = threading.Lock()
        self._closed = False

    def pair(self, a: str = "a", b: str = "b") -> HostPair:
        """Return two new hosts of these names, joined by a cable of their own and ready for a first connect.

        Raises :class:`UsageError` for a name that is no host name and for one name twice, :class:`LabError` with the
        step that failed; then nothing of it is left.
        """
        names = (check_name(a), check_name(b))
        if a.lower() == b.lower():
            raise UsageError(f"the two hosts of a pair have the same name {a!r}: give them different ones")
        if self._closed:
            raise PoorContainerError("cannot make a pair: the network is closed")
        lab = Lab.current(self._basetemp, self._rootdir)
        number = lab.new_link()
        named = {name: Addresses.of(number, end) for end, name in enumerate(names)}
        text = hosts_text(named)
        handles = lab.create([_spec(name, addresses, text) for name, addresses in named.items()], number)
        first, second = (Host(handle, named[handle.name], named) for handle in handles)
        pair = HostPair(first, second, Link(FabricMedium(lab, number), names), self._pairs.discard)
        with self._lock:
            self._pairs.add(pair)
        return pair

    def close(self) -> None:
        """Close every pair that is still open. Idempotent."""
        self._closed = True
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _spec(name: str, addresses: Addresses, text: str) -> Spec:
    """Return what the lab is asked for."""
    return Spec(
        name=name,
        hosts=text,
        interface=INTERFACE,
        mac=addresses.packed_mac(),
        ip4=addresses.packed_ip(),
        ip6=addresses.packed_ip6(),
    )
