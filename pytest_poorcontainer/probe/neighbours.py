"""Which neighbours a host looks for in vain: the kernel's tables of ARP and neighbour discovery (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.nfnetlink import attributes, messages

if TYPE_CHECKING:
    from pytest_poorcontainer.network import Host

__all__ = ["missing_neighbours"]

_NEW, _GET, _DONE, _ERROR = 28, 30, 3, 2  # RTM_NEWNEIGH, RTM_GETNEIGH, NLMSG_DONE, NLMSG_ERROR
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg
_DESTINATION = 1  # NDA_DST
_IN_VAIN = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED
_BUFFER = 65536


def missing_neighbours(host: Host) -> set[str]:
    """Return the addresses of those that a host asks for on its cables, and that have not answered."""
    body = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found: set[str] = set()
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET, _DUMP, 1, 0) + body)
        while True:
            for kind, data in messages(sock.recv(_BUFFER)):
                if kind in (_DONE, _ERROR):
                    return found
                if kind == _NEW and len(data) >= _NEIGHBOUR.size:
                    family, _, state, _, _ = _NEIGHBOUR.unpack_from(data)
                    address = dict(attributes(data[_NEIGHBOUR.size :])).get(_DESTINATION, b"")
                    if state & _IN_VAIN and len(address) in (4, 16):
                        found.add(socket.inet_ntop(family, address))
