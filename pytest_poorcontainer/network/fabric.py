"""The network namespace in which the plugs of all cables and the bridges of all switches of a lab are."""

from __future__ import annotations

import collections
import errno
import socket
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.network import messages
from pytest_poorcontainer.network.netlink import Netlink, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_poorcontainer.lab import Lab
    from pytest_poorcontainer.network.netlink import Request

__all__ = ["Fabric", "await_up", "fabric_of", "states"]

_UP = 6  # IF_OPER_UP, RFC 2863
_LOCAL = 2  # RTN_LOCAL
_PATIENCE = 2.0  # seconds; it takes some hundred microseconds
_EAGER, _PAUSE = 20, 0.00005
_SPARE = 8  # bridges of closed networks before it is looked whether the oldest is free

_fabrics: weakref.WeakKeyDictionary[Lab, Fabric] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Fabric:
    """Talks to the kernel about the fabric. Safe to use from several threads; ``lock`` is for what belongs together."""

    def __init__(self, lab: Lab) -> None:
        """Get a netlink socket of the fabric of this lab."""
        self._netlink = Netlink(lab.fabric_socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE))
        self.lock = threading.RLock()
        self._spare: collections.deque[int] = collections.deque()

    def take_over(self, bridges: Iterable[int]) -> None:
        """Keep the bridges of a network that was closed, for others: to remove one takes the kernel tens of ms."""
        with self.lock:
            self._spare.extend(bridges)

    def bridge(self) -> int | None:
        """Return a bridge that nobody has; None where there is none, or only a few: the kernel frees late.

        It has no port any more: until the last host of its last network is freed, it is not handed out.
        """
        with self.lock:
            if len(self._spare) < _SPARE:
                return None
            index = self._spare.popleft()
            if not self._ports(index):
                return index
            self._spare.append(index)
        return None

    def _ports(self, bridge: int) -> int:
        """Return how many ports a bridge has."""
        masters = (
            value
            for _, body in self._netlink.dump(messages.ports_of(bridge))
            for code, value in attributes(body, 16)
            if code == messages.MASTER
        )
        return sum(value == struct.pack("=I", bridge) for value in masters)

    def send(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        """Do what they ask for, in order. Raises :class:`LabError` for the first that the kernel refuses."""
        with self.lock:
            return self._netlink.send(requests)

    def await_up(self, plugs: Sequence[int], of: str) -> None:
        """Return when the plugs pass frames, which is later than when they are set up."""
        with self.lock:
            await_up(self._netlink, plugs, of)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()


def fabric_of(lab: Lab) -> Fabric:
    """Return the fabric of a lab; there is one object for each."""
    with _lock:
        fabric = _fabrics.get(lab)
        if fabric is None:
            fabric = _fabrics[lab] = Fabric(lab)
        return fabric


def states(replies: Sequence[tuple[int, bytes]]) -> tuple[int, int]:
    """Return how many interfaces are operationally up, and how many ways lead to this host itself."""
    up = own = 0
    for kind, body in replies:
        if kind == messages.NEWLINK:
            up += any(code == messages.OPERSTATE and value[0] == _UP for code, value in attributes(body, 16))
        elif kind == messages.NEWROUTE:
            own += body[7] == _LOCAL
    return up, own


def await_up(netlink: Netlink, indexes: Sequence[int], of: str, addresses: Sequence[bytes] = ()) -> None:
    """Return when these interfaces can be used, and the IPv6 addresses are this host's own.

    An interface drops frames until the kernel's link watch has run; asking for its state runs it (kernel commit
    facd15dfd691, Linux 6.8), on older kernels asking again is all that one can do. An IPv6 address is acknowledged
    before its local route is there. Raises :class:`LabError` when it takes too long.
    """
    queries = [messages.state(index, of) for index in indexes]
    queries += [messages.way_to(address, of) for address in addresses]
    if not queries:
        return
    deadline = time.monotonic() + _PATIENCE
    tries = 0
    while states(netlink.send(queries)) != (len(indexes), len(addresses)):
        if time.monotonic() > deadline:
            raise LabError("wait for", of, errno.ETIMEDOUT, "its interface does not become operational (RFC 2863)")
        tries += 1
        if tries > _EAGER:
            time.sleep(_PAUSE)
