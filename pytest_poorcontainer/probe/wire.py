"""Raw sockets: packets go out as they are made, and what comes back is read with the kernel's time of arrival.

They are made by whoever opens them: on the machine by ``socket.socket``, in a host by :meth:`Host.socket`, so that a
process without privilege probes from inside its own hosts.
"""

from __future__ import annotations

import array
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import Unavailable, UsageError
from pytest_poorcontainer.probe.parse import Reply, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["Opener", "Wire", "arrival", "attach", "open_here", "packed", "text"]

# Numbers that Python's socket module does not have on every version: asm-generic/socket.h, linux/in6.h, linux/icmp.h.
_SO_TIMESTAMPNS = 35
_SO_ATTACH_FILTER = 26
_SO_BINDTODEVICE = 25
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 49, 50, 51, 52
_IPV6_RECVTCLASS, _IPV6_TCLASS = 66, 67
_IPPROTO_ICMP6 = 58
_PMTUDISC_PROBE = 3  # linux/in.h, linux/in6.h
_TIME = struct.Struct("@ll")
_INT = struct.Struct("@i")
_BUFFER = 65536
_ANCILLARY = 256
_RECEIVE_BUFFER = 1 << 20
_BATCH = 256  # read so many of a socket before looking at the next

# Which ICMP types are answers: 0 echo reply, 3 unreachable, 11 time exceeded, 12 parameter problem; RFC 792.
_TYPES4 = (0, 3, 4, 11, 12)
_TYPES6 = (1, 2, 3, 4, 129)  # RFC 4443


def open_here(family: int, kind: int, protocol: int) -> socket.socket:
    """Return a socket of this process's own network."""
    return socket.socket(family, kind, protocol)


if TYPE_CHECKING:
    Opener = Callable[[int, int, int], socket.socket]
else:
    Opener = object


def packed(address: str) -> bytes:
    """Return an address as text, of either family, as bytes. Raises OSError for what is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def text(address: bytes) -> str:
    """Return a packed address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)  # noqa: PLR2004


def attach(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Attach a classic BPF program (bpf(4), Documentation/networking/filter.rst) to a socket."""
    code = array.array("B", b"".join(struct.pack("=HBBI", *line) for line in program))
    address, _ = code.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))


def _ports_filter(version: int, ports: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return a program that lets through what goes to a port from the first to the last of ``ports``."""
    load = [(0xB1, 0, 0, 0), (0x48, 0, 0, 2)] if version == 4 else [(0x28, 0, 0, 2)]  # noqa: PLR2004
    return [*load, (0x35, 0, 2, ports[0]), (0x25, 1, 0, ports[1]), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]


class Wire:
    """The sockets of one trace, for one family; ``ports`` are the first and last local port of its flows.

    Raises PermissionError without CAP_NET_RAW where ``opener`` makes sockets.
    """

    def __init__(self, opener: Opener, version: int, ports: tuple[int, int], device: str = "") -> None:
        """Open the sockets: one to send, one each for TCP, UDP and ICMP answers."""
        self.version = version
        self._ports = ports
        self.log: list[tuple[float, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._poll = select.poll()
        family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
        try:
            self._out = self._kept(opener(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
            self._ignore_known_mtus(family)
            if device:
                bind_to(self._out, device)
            # ICMP first: it tells about hops, and is read first.
            self._in = [
                self._receiver(opener, family, protocol, ports)
                for protocol in (
                    socket.IPPROTO_ICMP if version == 4 else _IPPROTO_ICMP6,  # noqa: PLR2004
                    socket.IPPROTO_TCP,
                    socket.IPPROTO_UDP,
                )
            ]
        except BaseException:
            self.close()
            raise

    def _ignore_known_mtus(self, family: int) -> None:
        """Let packets be as large as the interface allows, whatever the kernel has learnt of the path (ip(7))."""
        level, option = (socket.IPPROTO_IP, 10) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 23)
        self._out.setsockopt(level, option, _PMTUDISC_PROBE)  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER

    def _kept(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def _receiver(
        self, opener: Opener, family: int, protocol: int, ports: tuple[int, int]
    ) -> tuple[socket.socket, int]:
        sock = self._kept(opener(family, socket.SOCK_RAW, protocol))
        if protocol == socket.IPPROTO_ICMP:
            passed = sum(1 << number for number in _TYPES4)
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~passed & 0xFFFFFFFF))
        elif protocol == _IPPROTO_ICMP6:
            blocked = bytearray(b"\xff" * 32)  # struct icmp6_filter: a bit that is set blocks
            for number in _TYPES6:
                blocked[number >> 5 << 2 | _byte_of(number)] &= ~(1 << (number & 7)) & 0xFF
            sock.setsockopt(_IPPROTO_ICMP6, _ICMP6_FILTER, bytes(blocked))
        else:
            attach(sock, _ports_filter(self.version, ports))
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if self.version == 6:  # noqa: PLR2004
            for option in (_IPV6_RECVPKTINFO, _IPV6_RECVHOPLIMIT, _IPV6_RECVTCLASS):
                sock.setsockopt(socket.IPPROTO_IPV6, option, 1)
        self._poll.register(sock.fileno(), select.POLLIN)
        return sock, protocol

    def hear(self, ports: tuple[int, int]) -> None:
        """Listen for answers to local ports from the first to the last of ``ports`` as well."""
        self._ports = (min(self._ports[0], ports[0]), max(self._ports[1], ports[1]))
        for sock, protocol in self._in:
            if protocol not in (socket.IPPROTO_ICMP, _IPPROTO_ICMP6):
                attach(sock, _ports_filter(self.version, self._ports))

    def send(self, data: bytes, target: bytes, scope: int = 0) -> float:
        """Send a whole packet; return the time. Raises OSError as sendto(2) does (ENETUNREACH, EPERM of a firewall)."""
        address = (text(target), 0) if self.version == 4 else (text(target), 0, 0, scope)  # noqa: PLR2004
        at = time.time()
        self._out.sendto(data, address)
        self.log.append((at, data))
        return at

    def receive(self, seconds: float) -> list[Reply]:
        """Return what has come; wait for the first at most so long (0: do not wait)."""
        ready = {fd for fd, _ in self._poll.poll(max(seconds * 1000, 0))}
        replies: list[Reply] = []
        for sock, protocol in self._in:
            if sock.fileno() in ready:
                replies += self._drain(sock, protocol)
        return replies

    def _drain(self, sock: socket.socket, protocol: int) -> list[Reply]:
        replies: list[Reply] = []
        for _ in range(_BATCH):
            try:
                data, ancillary, _, address = sock.recvmsg(_BUFFER, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError:
                continue  # an error of an earlier packet, reported once (ip(7)): the packets behind it are what counts
            told = {(level, kind): value for level, kind, value in ancillary}
            at = arrival(told.get((socket.SOL_SOCKET, _SO_TIMESTAMPNS), b""))
            if self.version == 6:  # noqa: PLR2004
                data = _header6(told, protocol, address[0], len(data)) + data
            reply = parse(data, at)
            if reply is not None:
                self.log.append((at, data))
                replies.append(reply)
        return replies

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def arrival(stamp: bytes) -> float:
    """Return the kernel's time of arrival (SO_TIMESTAMPNS, socket(7)), or the time of now without one."""
    if len(stamp) < _TIME.size:
        return time.time()
    seconds, nanoseconds = _TIME.unpack_from(stamp)
    return float(seconds + nanoseconds * 1e-9)


def _header6(told: dict[tuple[int, int], bytes], protocol: int, source: str, length: int) -> bytes:
    """Return the IPv6 header, which the kernel keeps from raw sockets, made anew from what it tells (ipv6(7))."""
    number = bytes(_INT.size)
    (ttl,) = _INT.unpack_from(told.get((socket.IPPROTO_IPV6, _IPV6_HOPLIMIT), number))
    (tclass,) = _INT.unpack_from(told.get((socket.IPPROTO_IPV6, _IPV6_TCLASS), number))
    target = told.get((socket.IPPROTO_IPV6, _IPV6_PKTINFO), bytes(16))[:16]
    head = struct.pack("!IHBB", 6 << 28 | (tclass & 255) << 20, length, protocol, ttl & 255)
    return head + packed(source.partition("%")[0]) + target


def _byte_of(number: int) -> int:
    """Return which byte of its 32-bit word, in memory, has the bit of this number."""
    inside = number >> 3 & 3
    return inside if _LITTLE else 3 - inside


_LITTLE = struct.pack("=H", 1) == b"\x01\0"


def bind_to(sock: socket.socket, device: str) -> None:
    """Bind a socket to an interface. Raises :class:`UsageError` for one that is not there, :class:`Unavailable`."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode() + b"\0")
    except PermissionError:
        raise Unavailable(f"probing from interface {device}", "SO_BINDTODEVICE needs CAP_NET_RAW") from None
    except OSError as error:
        raise UsageError(f"cannot probe from interface {device!r}: {error.strerror}; `ip link` lists them") from None
