"""Where one probe was seen in networks of ours: a packet socket in each host shows what comes in and what goes out."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from pytest_poorcontainer.errors import LabError
from pytest_poorcontainer.probe.parse import parse
from pytest_poorcontainer.probe.wire import arrival, attach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

    from pytest_poorcontainer.network import Host
    from pytest_poorcontainer.probe.flow import Tcp

__all__ = ["Sighting", "Watch"]

_EVERYTHING = 3  # ETH_P_ALL of linux/if_ether.h
_STEP = 0.002  # seconds between two looks at the answers
_OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
_SO_TIMESTAMPNS = 35
_LOOPBACK = 772  # ARPHRD_LOOPBACK
_SKF_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL of linux/filter.h

# TCP over both families; the data begin with the IP header.
_FILTER = [
    (0x28, 0, 0, _SKF_PROTOCOL),
    (0x15, 0, 2, 0x0800),
    (0x30, 0, 0, 9),
    (0x15, 3, 4, 6),
    (0x15, 0, 3, 0x86DD),
    (0x30, 0, 0, 6),
    (0x15, 0, 1, 6),
    (0x06, 0, 0, 256),
    (0x06, 0, 0, 0),
]


class Sighting(NamedTuple):
    """``what`` ("probe" or "answer") was seen in a host, going ``out`` of an interface or coming in."""

    at: float
    host: Host
    interface: str
    out: bool
    what: str
    ports: tuple[int, int]

    def __str__(self) -> str:
        """Return "r2:e3>" for out, "r2:e2<" for in."""
        return f"{self.host.name}:{self.interface}{'>' if self.out else '<'}"


class Watch:
    """Packet sockets in hosts, open until the end of the block.

    A host without CAP_NET_RAW is not watched: what it does shows at its neighbours.
    """

    def __init__(self, hosts: Iterable[Host], flow: Tcp) -> None:
        """Open a socket in each host that lives; a dead router may be just what is looked for."""
        self._flow = flow
        self._sockets: dict[int, tuple[socket.socket, Host]] = {}
        self._poll = select.poll()
        try:
            for host in hosts:
                with contextlib.suppress(LabError, PermissionError):  # it has died, or may not watch
                    self._open(host)
        except BaseException:
            self.close()
            raise

    def _open(self, host: Host) -> None:
        sock = host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))
        self._sockets[sock.fileno()] = (sock, host)
        sock.setblocking(False)
        attach(sock, _FILTER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._poll.register(sock.fileno(), select.POLLIN)

    def observe(self, send: Callable[[], None], quiet: float, answered: Callable[[], bool]) -> list[Sighting]:
        """Send a probe; return where it and its answer were seen, in order, when nothing moved for ``quiet`` seconds.

        ``answered`` is called now and then; when it is true that ends it too.
        """
        self._read()  # what was there before
        send()
        seen: list[Sighting] = []
        last = time.monotonic()
        until = last + 1.0
        while (left := min(last + quiet, until) - time.monotonic()) > 0:
            self._poll.poll(min(left, _STEP) * 1000)
            new = self._read()
            if new:
                last = time.monotonic()
            seen += new
            if answered():
                break
        seen.sort(key=lambda one: one.at)
        return seen

    def _read(self) -> list[Sighting]:
        found = []
        for fd, _ in self._poll.poll(0):
            sock, host = self._sockets[fd]
            for _ in range(1000):
                try:
                    data, ancillary, _, address = sock.recvmsg(256, 64)
                except OSError:
                    break
                one = self._sighting(host, data, ancillary, address)
                if one is not None:
                    found.append(one)
        return found

    def _sighting(
        self, host: Host, data: bytes, ancillary: Sequence[tuple[int, int, bytes]], address: tuple[str, int, int, int]
    ) -> Sighting | None:
        interface, _, direction, hardware = address[:4]
        if hardware == _LOOPBACK:
            return None
        at = arrival(next((value for _, kind, value in ancillary if kind == _SO_TIMESTAMPNS), b""))
        out = direction == _OUTGOING
        reply = parse(data, at)
        if reply is None or reply.segment is None:
            return None
        what = self._flow.recognise(reply.segment)
        ports = (reply.segment.source_port, reply.segment.target_port)
        return Sighting(at, host, interface, out, what, ports) if what else None

    def close(self) -> None:
        """Close the sockets, without waiting: the kernel takes a grace period for each. Idempotent."""
        sockets = [sock for sock, _ in self._sockets.values()]
        self._sockets.clear()
        if sockets:
            threading.Thread(target=_close_all, args=(sockets,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
