"""Probes without privilege: a socket of the kernel's for each TTL, and its error queue for what routers say.

The kernel gives the error queue of a socket (IP_RECVERR, ip(7); IPV6_RECVERR, ipv6(7)) the router's address and the
type of its ICMP error, to everybody. A connection that is established nevertheless is never acknowledged: TCP_QUICKACK
off holds the last packet of the handshake back, and SO_LINGER with 0 seconds turns the close into a reset (tcp(7),
socket(7)), so that the server's program never sees it.

What it cannot do: other flags than SYN, one flow for all TTLs (each socket has a port of its own, so routers that
balance load may take each probe another way), and what raw packets show besides (TTLs and rewritten headers).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from pytest_poorcontainer.probe.engine import Engine
from pytest_poorcontainer.probe.facts import Seen
from pytest_poorcontainer.probe.flow import FULL_TTL, Echo, Tcp, Udp
from pytest_poorcontainer.probe.packet import ACK, RST, SYN
from pytest_poorcontainer.probe.parse import ERRORS4, ERRORS6
from pytest_poorcontainer.probe.wire import arrival, text

if TYPE_CHECKING:
    from pytest_poorcontainer.probe.engine import Track
    from pytest_poorcontainer.probe.flow import Flow
    from pytest_poorcontainer.probe.wire import Opener

__all__ = ["UserEngine"]

_IP_TTL, _IP_TOS, _IP_RECVERR, _IP_RECVTTL = 2, 1, 11, 12  # linux/in.h
_IPV6_UNICAST_HOPS, _IPV6_RECVERR, _IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT, _IPV6_TCLASS = 16, 25, 51, 52, 67  # linux/in6.h
_TCP_SYNCNT, _TCP_INFO, _TCP_QUICKACK = 7, 11, 12  # linux/tcp.h
_MSG_ERRQUEUE = 0x2000
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_FROM_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 of linux/errqueue.h
_ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err
_INFO_RTT = 68  # offset of tcpi_rtt in struct tcp_info, microseconds
_RESET_AT_CLOSE = struct.pack("@ii", 1, 0)
_REFUSED = (errno.ECONNREFUSED, errno.ECONNRESET)
_ICMP6 = 58
_REMOTE = {errno.EHOSTUNREACH: 1, errno.ENETUNREACH: 0}  # what the own kernel says, as ICMP codes


class _Probe:
    """A socket that is under way."""

    __slots__ = ("at", "sock", "track", "ttl")

    def __init__(self, track: Track, ttl: int, sock: socket.socket) -> None:
        self.track = track
        self.ttl = ttl
        self.sock = sock
        self.at = time.time()


class UserEngine(Engine):
    """An engine whose probes are ordinary sockets, made by ``opener``, from ``source`` (text) to ``target``."""

    def __init__(self, opener: Opener, source: str, scope: int = 0, device: str = "") -> None:  # noqa: D107 - above
        super().__init__(None, scope)
        self._open = opener
        self._source = source
        self._version4 = ":" not in source
        self._family = socket.AF_INET if self._version4 else socket.AF_INET6
        self._device = device
        self._flying: dict[int, _Probe] = {}
        self._poll = select.poll()

    def send(self, track: Track, ttl: int = FULL_TTL, payload: int = 0) -> None:
        """Start a probe, if the flow is of a kind that ordinary sockets can send. ``payload`` is not for TCP."""
        flow = track.flow
        if isinstance(flow, Tcp) and flow.flags != SYN:
            return
        try:
            sock = self._socket(flow, ttl)
        except PermissionError:
            return  # echo requests are not for everybody (ping_group_range, icmp(7))
        track.facts.sent[ttl] = track.facts.sent.get(ttl, 0) + 1
        probe = _Probe(track, ttl, sock)
        track.probes.append((ttl, probe.at))
        self._flying[sock.fileno()] = probe
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLOUT if isinstance(flow, Tcp) else select.POLLIN)
        address = (text(flow.target), flow.ports[1])
        try:
            sock.connect(address if self._version4 else (*address, 0, self._scope))
            if not isinstance(flow, Tcp):
                sock.send(self._datagram(flow, payload))
        except BlockingIOError:
            pass  # as it should be: the answer comes later
        except OSError as error:
            if error.errno == errno.EINPROGRESS:
                return
            self._failed(probe, error.errno or 0)

    def _socket(self, flow: Flow, ttl: int) -> socket.socket:
        if isinstance(flow, Tcp):
            sock = self._open(self._family, socket.SOCK_STREAM, 0)
        elif isinstance(flow, Udp):
            sock = self._open(self._family, socket.SOCK_DGRAM, 0)
        else:
            sock = self._open(self._family, socket.SOCK_DGRAM, socket.IPPROTO_ICMP if self._version4 else _ICMP6)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._version4:
                options = ((_IP_TTL, ttl), (_IP_RECVERR, 1), (_IP_RECVTTL, 1), (_IP_TOS, flow.tos))
                level = socket.IPPROTO_IP
            else:
                level = socket.IPPROTO_IPV6
                options = (
                    (_IPV6_UNICAST_HOPS, ttl),
                    (_IPV6_RECVERR, 1),
                    (_IPV6_RECVHOPLIMIT, 1),
                    (_IPV6_TCLASS, flow.tos),
                )
            for option, value in options:
                sock.setsockopt(level, option, value)
            if isinstance(flow, Tcp):
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_SYNCNT, 1)
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            sock.bind((self._source, 0) if self._version4 else (self._source, 0, 0, self._scope))
        except BaseException:
            sock.close()
            raise
        return sock

    def _datagram(self, flow: Flow, payload: int) -> bytes:
        if isinstance(flow, Echo):
            return struct.pack("!BBHHH", 8 if self._version4 else 128, 0, 0, 0, 1) + bytes(32 + payload)
        return bytes(24 + payload)

    def pump(self, seconds: float) -> bool:
        """Wait at most so long for answers and take them in; return whether one came."""
        heard = False
        for fd, events in self._poll.poll(max(seconds * 1000, 0)):
            probe = self._flying.get(fd)
            if probe is not None:
                heard = self._look(probe, events) or heard
        return heard

    def _look(self, probe: _Probe, events: int) -> bool:
        now = time.time()
        if events & select.POLLERR and self._read_error(probe, now):
            self._end(probe)
            return True
        number = probe.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._failed(probe, number, now)
            return True
        if events & (select.POLLOUT | select.POLLIN) and not events & select.POLLHUP:
            self._arrived(probe, now)
            return True
        return False

    def _arrived(self, probe: _Probe, now: float) -> None:
        """Take in that the target answered: a connection, an echo reply, a datagram."""
        rtt = max(now - probe.at, 0.0)
        flow = probe.track.flow
        if isinstance(flow, Tcp):
            info = probe.sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_RTT + 4)
            measured = int.from_bytes(info[_INFO_RTT:], "little" if struct.pack("=H", 1)[0] else "big") / 1e6
            self._heard(probe, "tcp", measured or rtt, flags=SYN | ACK)
        else:
            self._heard(probe, "echo" if isinstance(flow, Echo) else "udp", rtt)
        self._end(probe)

    def _failed(self, probe: _Probe, number: int, now: float | None = None) -> None:
        """Take in the error of a socket: a reset, or what the own kernel found out."""
        rtt = max((time.time() if now is None else now) - probe.at, 0.0)
        if number in _REFUSED:
            self._heard(probe, "tcp", rtt, flags=RST | ACK)
        elif number in _REMOTE:
            self._heard(probe, "unreachable", rtt, code=_REMOTE[number], address=self._source)
        elif number == errno.EPERM:
            self.refused = PermissionError(number, "a firewall on this side does not let it out")
        self._end(probe)

    def _read_error(self, probe: _Probe, now: float) -> bool:
        """Read the error queue; return whether there was an ICMP error in it."""
        with contextlib.suppress(BlockingIOError):
            _, ancillary, _, _ = probe.sock.recvmsg(512, 512, _MSG_ERRQUEUE)
            ttl, at = 0, now
            found: tuple[int, int, int, str] | None = None
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    at = arrival(value)
                elif kind in (_IP_TTL, _IPV6_HOPLIMIT) and len(value) == 4:  # noqa: PLR2004
                    (ttl,) = struct.unpack("=i", value)
                elif kind in (_IP_RECVERR, _IPV6_RECVERR) and len(value) >= _ERROR.size:
                    found = self._icmp(value) or found
            if found is not None:
                number, code, info, address = found
                kind_of = (ERRORS4 if self._version4 else ERRORS6).get(number)
                if kind_of is None:
                    return False
                if kind_of == "unreachable" and self._version4 and code == 4:  # noqa: PLR2004 - fragmentation needed
                    kind_of = "too-big"
                rtt = max(at - probe.at, 0.0)
                self._heard(probe, kind_of, rtt, code=code, address=address, reply_ttl=ttl, mtu=info)
                return True
        return False

    def _icmp(self, value: bytes) -> tuple[int, int, int, str] | None:
        """Return type, code, information and sender of an ICMP error."""
        _, origin, number, code, info, _ = _ERROR.unpack_from(value)
        offender = value[_ERROR.size :]
        if origin not in _FROM_ICMP:
            return None
        place, size = (4, 4) if self._version4 else (8, 16)
        if len(offender) < place + size:
            return None
        return number, code, info, text(offender[place : place + size])

    def _heard(
        self,
        probe: _Probe,
        kind: str,
        rtt: float,
        *,
        flags: int = 0,
        code: int = 0,
        address: str = "",
        reply_ttl: int = 0,
        mtu: int = 0,
    ) -> None:
        track = probe.track
        self.largest = max(self.largest, rtt)
        track.last_heard = time.time()
        source = address or text(track.flow.target)
        track.facts.add(Seen(probe.ttl, source, kind, rtt, reply_ttl, code, flags, mtu=mtu))

    def _end(self, probe: _Probe) -> None:
        fd = probe.sock.fileno()
        if self._flying.pop(fd, None) is not None:
            self._poll.unregister(fd)
            probe.sock.close()

    def close(self) -> None:
        """Close what is under way. Idempotent."""
        for probe in list(self._flying.values()):
            self._end(probe)
