"""TCP connections that are ended from outside (sock_diag(7), SOCK_DESTROY since Linux 4.5)."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, Unavailable
from pytest_poorcontainer.network.netlink import ACK, Netlink, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_poorcontainer.network.host import Host
    from pytest_poorcontainer.network.ways import Place

__all__ = ["reset"]

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST = struct.Struct("=BBBBI")
_ID_SIZE = 48
_TCP = 6
# All but those that wait after their end, listen, or are half open; TCP_ESTABLISHED is 1.
_STATES = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
_MAPPED = bytes(10) + b"\xff\xff"


def reset(places: Sequence[Place]) -> int:
    """End the connections whose packets pass these places; return how many.

    Ended first where the first of these places leads to, so that the other side gets a reset; then those that are left
    at the other side, whose peer may be gone. Raises :class:`Unavailable` when the kernel cannot.
    """
    ended: set[frozenset[tuple[bytes, int]]] = set()
    hosts: dict[Host, list[tuple[frozenset[bytes] | None, frozenset[bytes] | None]]] = {}
    for place in places:
        port = place.link.cable.ports[place.towards]
        host = None if port is None else port.node.host
        if port is None or host is None or host.closed or place.match.to_group:
            continue
        own = place.match.receivers or frozenset(port.node.packed())
        hosts.setdefault(host, []).append((place.match.senders, own))
    for host, wanted in hosts.items():
        ended |= _end_in(host, wanted)
    return len(ended)


def _end_in(
    host: Host, wanted: Sequence[tuple[frozenset[bytes] | None, frozenset[bytes] | None]]
) -> set[frozenset[tuple[bytes, int]]]:
    ended = set()
    with Netlink(host.socket_fd(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG)) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, _TCP, 0, 0, _STATES) + bytes(_ID_SIZE)
            for _, reply in netlink.dump(Request(_BY_FAMILY, 0, body, "list the connections of", host.name)):
                identity = reply[4 : 4 + _ID_SIZE]
                local, remote = _address(identity[4:20], reply[0]), _address(identity[20:36], reply[0])
                if local == remote or not any(
                    (senders is None or remote in senders) and (own is None or local in own) for senders, own in wanted
                ):
                    continue
                request = _REQUEST.pack(reply[0], _TCP, 0, 0, 0xFFFFFFFF) + identity
                try:
                    netlink.send([Request(_DESTROY, ACK, request, "end a connection of", host.name, (errno.ENOENT,))])
                except LabError as error:
                    if error.errno == errno.EOPNOTSUPP:
                        raise Unavailable(
                            "reset", "the kernel cannot end connections of others", "it needs CONFIG_INET_DIAG_DESTROY"
                        ) from None
                    raise
                ports = struct.unpack(">HH", identity[:4])
                ended.add(frozenset(((local, ports[0]), (remote, ports[1]))))
    return ended


def _address(value: bytes, family: int) -> bytes:
    if family == socket.AF_INET:
        return value[:4]
    return value[12:] if value.startswith(_MAPPED) else value
