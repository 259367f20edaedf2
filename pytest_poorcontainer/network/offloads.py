"""Hosts' interfaces that cut segments to size themselves, for as long as a fault has to see single packets."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_poorcontainer.network.link import Link
    from pytest_poorcontainer.network.topology import Port

__all__ = ["segmenting_off"]

_SIOCETHTOOL = 0x8946
_GTSO, _STSO = 0x1E, 0x1F  # linux/ethtool.h
_IFREQ = struct.Struct("@16sP16x")


class _Value(ctypes.Structure):
    """struct ethtool_value."""

    _fields_ = (("command", ctypes.c_uint32), ("data", ctypes.c_uint32))


@contextlib.contextmanager
def segmenting_off(links: Iterable[Link]) -> Iterator[None]:
    """Switch TCP segmentation offload off at all interfaces whose packets pass these links; then on where it was."""
    ports = {port: None for link in links for end in link.cable.ports if end is not None for port in end.segment.ports}
    switched = []
    try:
        for port in ports:
            if _ethtool(port, _GTSO, 0):
                switched.append(port)
                _ethtool(port, _STSO, 0)
        yield
    finally:
        for port in switched:
            _ethtool(port, _STSO, 1)


def _ethtool(port: Port, command: int, data: int) -> int:
    """Do one thing to a host's interface; 0 where host or interface are gone."""
    host = port.node.host
    if host is None or host.closed:
        return 0
    value = _Value(command, data)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, _IFREQ.pack(port.name.encode(), ctypes.addressof(value)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return 0
    return int(value.data)
