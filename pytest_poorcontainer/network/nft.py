"""Just enough of nf_tables (linux/netfilter/nf_tables.h): addresses that are translated, ports that are refused."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from pytest_poorcontainer.errors import LabError, Unavailable
from pytest_poorcontainer.lab import forks, protocol
from pytest_poorcontainer.network.netlink import attribute, nest, text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FORWARD",
    "INET",
    "INGRESS",
    "META_L4PROTO",
    "META_PROTOCOL",
    "NETDEV",
    "NETFILTER",
    "POSTROUTING",
    "PREROUTING",
    "Ruleset",
    "comes_in",
    "dnat",
    "equal",
    "goes_out",
    "masquerade",
    "meta",
    "of_family",
    "payload",
    "reject",
    "status",
    "verdict",
]

NETFILTER = 12  # NETLINK_NETFILTER of linux/netlink.h
INET, NETDEV = 1, 5  # NFPROTO_INET, NFPROTO_NETDEV
PREROUTING, FORWARD, POSTROUTING, INGRESS = 0, 2, 4, 0
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_SUBSYSTEM = 10 << 8
_BEGIN, _END = 0x10, 0x11
_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR = struct.Struct("=i")
_PATIENCE = 20
_REGISTER, _REGISTER2, _VERDICT = 1, 2, 0
_ACCEPT, _DROP = 1, 0
META_PROTOCOL, _META_IIFNAME, _META_OIFNAME, META_L4PROTO, _META_NFPROTO = 1, 6, 7, 16, 15
_CT_STATE, _CT_STATUS = 0, 2


def _be(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(0x8000 | 1, text(1, name), nest(0x8000 | 2, *parts))


def meta(key: int) -> bytes:
    """Load something about a packet."""
    return _expression("meta", _be(1, _REGISTER), _be(2, key))


def payload(base: int, offset: int, length: int) -> bytes:
    """Load bytes of a packet: base 1 is the network header, 2 the transport header."""
    return _expression("payload", _be(1, _REGISTER), _be(2, base), _be(3, offset), _be(4, length))


def equal(value: bytes, *, but: bool = False) -> bytes:
    """Go on if what was loaded is this; ``but``: if it is not."""
    return _expression("cmp", _be(1, _REGISTER), _be(2, int(but)), nest(0x8000 | 3, attribute(1, value)))


def goes_out(interface: str, *, but: bool = False) -> bytes:
    """Go on for packets that leave by this interface."""
    name = interface.encode() + b"\0"
    return meta(_META_OIFNAME) + equal(name.ljust(16, b"\0"), but=but)


def comes_in(interface: str) -> bytes:
    """Go on for packets that came by this interface."""
    return meta(_META_IIFNAME) + equal((interface.encode() + b"\0").ljust(16, b"\0"))


def _bits(mask: int) -> bytes:
    """Go on if one of these bits of what was loaded is set (in the machine's byte order)."""
    value = struct.pack("=I", mask)
    zero = bytes(4)
    masked = _expression(
        "bitwise",
        _be(1, _REGISTER),
        _be(2, _REGISTER),
        _be(3, 4),
        nest(0x8000 | 4, attribute(1, value)),
        nest(0x8000 | 5, attribute(1, zero)),
    )
    return masked + equal(zero, but=True)


def status(*, established: bool = False) -> bytes:
    """Go on for packets of connections that are known, or else for those of which the destination was translated."""
    if established:
        return _expression("ct", _be(1, _REGISTER), _be(2, _CT_STATE)) + _bits(2 | 4)  # ESTABLISHED, RELATED
    return _expression("ct", _be(1, _REGISTER), _be(2, _CT_STATUS)) + _bits(1 << 5)  # IPS_DST_NAT


def verdict(*, accept: bool) -> bytes:
    """Let it pass, or drop it."""
    code = nest(0x8000 | 2, _be(1, _ACCEPT if accept else _DROP))
    return _expression("immediate", _be(1, _VERDICT), nest(0x8000 | 2, code))


def masquerade() -> bytes:
    """Give it the address of the interface by which it leaves."""
    return _expression("masq")


def dnat(address: bytes, port: int) -> bytes:
    """Send it to another address and port."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6  # noqa: PLR2004
    load = _expression("immediate", _be(1, _REGISTER), nest(0x8000 | 2, attribute(1, address)))
    load += _expression("immediate", _be(1, _REGISTER2), nest(0x8000 | 2, attribute(1, struct.pack(">H", port))))
    return load + _expression(
        "nat", _be(1, 1), _be(2, family), _be(3, _REGISTER), _be(4, _REGISTER), _be(5, _REGISTER2), _be(6, _REGISTER2)
    )


def of_family(version: int) -> bytes:
    """Go on for packets of IPv4 or IPv6, in a table for both."""
    return meta(_META_NFPROTO) + equal(bytes((2 if version == 4 else 10,)))  # noqa: PLR2004


def reject(*, tcp: bool) -> bytes:
    """Drop it and say so: a TCP reset, or ICMP's port unreachable."""
    return _expression("reject", _be(1, 1)) if tcp else _expression("reject", _be(1, 2), attribute(2, b"\1"))


class Ruleset:
    """One table, made and taken away as a whole. ``fd`` is a netlink socket for netfilter, of the network concerned."""

    def __init__(self, fd: int, family: int, name: str, of: str) -> None:
        """Plan an empty table of this name; ``of`` is for messages."""
        forks.guard(fd)
        self._socket = protocol.socket_of(fd)
        protocol.limit_waits(self._socket, _PATIENCE)
        self._family = family
        self._name = name
        self._of = of
        self._messages: list[tuple[int, int, bytes]] = [(_NEWTABLE, _CREATE, text(1, name))]

    def chain(self, name: str, kind: str, hook: int, priority: int, device: str = "") -> None:
        """Add a base chain: ``kind`` is "filter" or "nat"."""
        parts = [_be(1, hook), attribute(2, struct.pack(">i", priority))]
        if device:
            parts.append(text(3, device))
        body = text(1, self._name) + text(3, name) + nest(0x8000 | 4, *parts) + text(7, kind)
        self._messages.append((_NEWCHAIN, _CREATE, body))

    def rule(self, chain: str, *expressions: bytes) -> None:
        """Add a rule at the end of a chain."""
        body = text(1, self._name) + text(2, chain) + nest(0x8000 | 4, *expressions)
        self._messages.append((_NEWRULE, _CREATE | _APPEND, body))

    def commit(self) -> None:
        """Put in force what was added since the last time, all of it or nothing.

        Raises :class:`Unavailable` when the kernel lacks a part of nf_tables, :class:`LabError` for the rest.
        """
        messages, self._messages = self._messages, []
        self._send(messages, "add rules in")

    def remove(self) -> None:
        """Take the table away, and close the socket."""
        try:
            self._send([(_DELTABLE, 0, text(1, self._name))], "remove rules in")
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket; the table stays."""
        fd = self._socket.fileno()
        if fd >= 0:
            forks.expose(fd)
            self._socket.close()

    def _send(self, messages: Sequence[tuple[int, int, bytes]], step: str) -> None:
        batch = _NFGEN.pack(0, 0, socket.htons(10))
        data = _HEADER.pack(20, _BEGIN, _REQUEST, 0, 0) + batch
        for place, (kind, flags, body) in enumerate(messages, 1):
            content = _NFGEN.pack(self._family, 0, 0) + body
            data += _HEADER.pack(16 + len(content), _SUBSYSTEM | kind, flags | _REQUEST | _ACK, place, 0) + content
        data += _HEADER.pack(20, _END, _REQUEST, len(messages) + 1, 0) + batch
        try:
            self._socket.send(data)
            self._await(len(messages), step)
        except BlockingIOError:
            raise LabError(step, self._of, errno.ETIMEDOUT) from None

    def _await(self, count: int, step: str) -> None:
        answered = 0
        while answered < count:
            data = self._socket.recv(1 << 16)
            start = 0
            while start + 20 <= len(data):
                length, _, _, place, _ = _HEADER.unpack_from(data, start)
                code = -_ERROR.unpack_from(data, start + 16)[0]
                start += length + -length % 4
                if code in (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
                    raise Unavailable(
                        "nf_tables",
                        f"the kernel cannot {step} {self._of} (message {place}: {errno.errorcode[code]})",
                        "it needs nf_tables with nat, masq, reject and ct (CONFIG_NFT_*)",
                    )
                if code:
                    raise LabError(step, self._of, code)
                answered += 1
