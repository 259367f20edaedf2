"""By which interface the kernel sends to a target, and how large packets may be there (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.nfnetlink import attributes, messages

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.wire import Opener

__all__ = ["first_mtu", "has_route"]

_GET_ROUTE, _GET_LINK = 26, 18  # RTM_GETROUTE, RTM_GETLINK
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_TARGET, _INTERFACE, _MTU = 1, 4, 4  # RTA_DST, RTA_OIF, IFLA_MTU
_BUFFER = 65536


def _asked(sock: socket.socket, kind: int, body: bytes, skipped: int) -> dict[int, bytes]:
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, 1, 0) + body)
    for answer, data in messages(sock.recv(_BUFFER)):
        if answer != 2:  # noqa: PLR2004 - NLMSG_ERROR
            return dict(attributes(data[skipped:]))
    return {}


def has_route(opener: Opener, target: bytes) -> bool:
    """Whether the kernel there would send packets to a packed address anywhere."""
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6  # noqa: PLR2004
    with opener(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1)
        return bool(_route(sock, family, target))


def _route(sock: socket.socket, family: int, target: bytes) -> dict[int, bytes]:
    body = _ROUTE.pack(family, len(target) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", len(target) + 4, _TARGET) + target
    return _asked(sock, _GET_ROUTE, body, _ROUTE.size)


def first_mtu(opener: Opener, target: bytes) -> int | None:
    """Return the MTU of the interface that leads to a packed address, None when there is none."""
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6  # noqa: PLR2004
    with opener(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1)
        number = _route(sock, family, target).get(_INTERFACE)
        if number is None:
            return None
        (index,) = struct.unpack("=I", number)
        mtu = _asked(sock, _GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0), _LINK.size).get(_MTU)
        return None if mtu is None else int(struct.unpack("=I", mtu)[0])
