"""How a host's traffic is captured: a packet socket of the host, emptied by the recorder."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import UsageError
from pytest_poorcontainer.lab.sizes import parse_size
from pytest_poorcontainer.traffic import bpf
from pytest_poorcontainer.traffic.capture import Capture, Source
from pytest_poorcontainer.traffic.filters import Filter, compiled
from pytest_poorcontainer.traffic.recorder import Recorder, Tapped

if TYPE_CHECKING:
    from pytest_poorcontainer.network.host import Host

__all__ = ["capture"]

_WITHOUT_LOOPBACK = 1  # TAP_WITHOUT_LOOPBACK of preload/recorder/tap.h
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16si20x")
_NAME_MOST = 15


def capture(host: Host, wanted: str, interface: str | None, limit: int | str) -> Capture:
    """Return a capture on a host that begins with its block; the arguments are those of :meth:`Host.capture`."""
    host._handle.check()  # noqa: SLF001 - ours
    compiled_filter = compiled(wanted, host.resolve)
    most = parse_size(limit, "limit")
    if interface is not None and not 0 < len(interface.encode()) <= _NAME_MOST:
        raise UsageError(f"{interface!r} is no name of an interface: 1 to {_NAME_MOST} bytes")

    def start(recorder: Recorder, wanted: Filter) -> Tapped:
        # Without a protocol it receives nothing until the recorder binds it: then the filter is there.
        with host.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            bpf.attach(sock, wanted.program)
            every = interface in (None, "any")
            index = 0 if every else _index(sock, str(interface), host.name)
            return recorder.tap(sock.fileno(), index, _WITHOUT_LOOPBACK if interface is None else 0, most)

    # A recorder that is there already will do; it need not record.
    recorder = Recorder.of(host._handle.lab, 0)  # noqa: SLF001
    interfaces = _interfaces(host)
    source = Source(host.name, host.resolve, host.names_of_addresses, lambda: interfaces)
    return Capture(source, compiled_filter, recorder, start)


def _index(sock: socket.socket, name: str, host: str) -> int:
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
    except OSError as error:
        raise UsageError(f"{host} has no interface {name!r}: {error.strerror}") from None
    index: int = _IFREQ.unpack(answer)[1]
    return index


def _interfaces(host: Host) -> dict[int, str]:
    """Return the host's interfaces that we made, and lo, by their indexes in it."""
    found = {}
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in ("lo", *dict.fromkeys(name for _, name in host.plugs)):
            with contextlib.suppress(UsageError):
                found[_index(sock, name, host.name)] = name
    return found
