"""What is in a frame: Ethernet, VLAN, ARP, IPv4, IPv6, TCP, UDP, ICMP and ICMPv6, read without scapy.

Nothing here raises: a frame that is cut short, or that lies about its lengths, gives what could be read, and says
``truncated``. RFC 791, 792, 826, 4443, 4861, 8200, 9293; IEEE 802.1Q.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["Packet", "parsed", "parsed_ip"]

_ARP, _IP4, _IP6, _VLANS = 0x0806, 0x0800, 0x86DD, (0x8100, 0x88A8)
_ETHERTYPES: Final = {_ARP: "arp", _IP4: "ipv4", _IP6: "ipv6", 0x88CC: "lldp"}
_PROTOCOLS: Final = {
    2: "igmp",
    4: "ipip",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    89: "ospf",
    112: "vrrp",
    132: "sctp",
}
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_EXTENSIONS = (0, 43, 60)
_FRAGMENT, _AUTHENTICATION = 44, 51
_MOST_EXTENSIONS, _MOST_VLANS = 8, 4
_FLAGS: Final = ((2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"))
_SACK = 5
_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP_BODY: Final = struct.Struct("!HHBBH6s4s6s4s")
_TCP_HEADER: Final = struct.Struct("!HHIIBBHHH")
_UDP_HEADER: Final = struct.Struct("!HHHH")
_ICMP_ERRORS, _ICMP6_ERRORS = (3, 4, 5, 11, 12), (1, 2, 3, 4)


@dataclass(slots=True)
class Packet:
    """What could be read of a frame.

    ``network`` is "ipv4", "ipv6", "arp", ..., ``protocol`` what it carries ("tcp", "udp", "icmp", "icmp6", "arp",
    "ospf", "ip-99", ...); both "" when unknown. ``payload`` counts the bytes behind the last header that was read.
    ``kind`` and ``code`` are those of ICMP, or ``kind`` the operation of ARP; ``number`` the identification of an IPv4
    packet, ``mark`` identifier and sequence of an echo; ``quoted`` the packet that an ICMP error is about.
    """

    link_source: str = ""
    link_target: str = ""
    vlans: tuple[int, ...] = ()
    network: str = ""
    source: str = ""
    target: str = ""
    hops: int = 0
    number: int = 0
    fragment: bool = False
    protocol: str = ""
    source_port: int = 0
    target_port: int = 0
    flags: str = ""
    sequence: int = 0
    acknowledgment: int = 0
    window: int = 0
    sacks: tuple[tuple[int, int], ...] = ()
    payload: int = 0
    kind: int = -1
    code: int = -1
    mark: tuple[int, int] = (0, 0)
    asked: str = ""
    quoted: Packet | None = None
    truncated: bool = False


def parsed(data: bytes, length: int | None = None) -> Packet:
    """Return what an Ethernet frame says; ``length`` is what it had, if ``data`` is only its beginning."""
    packet = Packet()
    if len(data) < _ETHERNET.size:
        packet.truncated = True
        return packet
    target, source, kind = _ETHERNET.unpack_from(data)
    packet.link_source, packet.link_target = source.hex(":"), target.hex(":")
    at = _ETHERNET.size
    while kind in _VLANS and len(packet.vlans) < _MOST_VLANS:
        if len(data) < at + 4:
            packet.truncated = True
            return packet
        tag, kind = struct.unpack_from("!HH", data, at)
        packet.vlans += (tag & 0xFFF,)
        at += 4
    packet.network = _ETHERTYPES.get(kind, "")
    packet.payload = (length or len(data)) - at
    if kind == _ARP:
        _arp(packet, data, at)
    elif kind in (_IP4, _IP6):
        _ip(packet, data, at, packet.payload)
    return packet


def parsed_ip(data: bytes) -> Packet:
    """Return what a packet says that begins with its IPv4 or IPv6 header."""
    packet = Packet(network="ipv6" if data and data[0] >> 4 == 6 else "ipv4")  # noqa: PLR2004
    _ip(packet, data, 0, len(data), quoted=True)
    return packet


def _arp(packet: Packet, data: bytes, at: int) -> None:
    packet.protocol = "arp"
    if len(data) < at + _ARP_BODY.size:
        packet.truncated = True
        return
    _, _, hardware, size, packet.kind, _, source, _, target = _ARP_BODY.unpack_from(data, at)
    if (hardware, size) != (6, 4):
        packet.truncated = True
        return
    packet.source, packet.target = socket.inet_ntoa(source), socket.inet_ntoa(target)


def _ip(packet: Packet, data: bytes, at: int, left: int, *, quoted: bool = False) -> None:
    if packet.network == "ipv4":
        _ip4(packet, data, at, left, quoted=quoted)
    else:
        _ip6(packet, data, at, left, quoted=quoted)


def _ip4(packet: Packet, data: bytes, at: int, left: int, *, quoted: bool) -> None:
    if len(data) < at + 20 or (data[at] & 15) < 5:  # noqa: PLR2004 - words of four bytes
        packet.truncated = True
        return
    header = (data[at] & 15) * 4
    total, packet.number, fragment = struct.unpack_from("!HHH", data, at + 2)
    packet.hops = data[at + 8]
    packet.source, packet.target = socket.inet_ntoa(data[at + 12 : at + 16]), socket.inet_ntoa(data[at + 16 : at + 20])
    packet.fragment = bool(fragment & 0x3FFF)
    # 0 where the kernel has joined more than 64 KiB (BIG TCP); then the frame's length is what there is.
    size = (total or left) - header
    _transport(packet, data, at + header, size, data[at + 9], first=not fragment & 0x1FFF, quoted=quoted)


def _ip6(packet: Packet, data: bytes, at: int, left: int, *, quoted: bool) -> None:
    if len(data) < at + 40:
        packet.truncated = True
        return
    size, kind, packet.hops = struct.unpack_from("!HBB", data, at + 4)
    packet.source = socket.inet_ntop(socket.AF_INET6, data[at + 8 : at + 24])
    packet.target = socket.inet_ntop(socket.AF_INET6, data[at + 24 : at + 40])
    size = size or left - 40
    at += 40
    first = True
    for _ in range(_MOST_EXTENSIONS):
        if kind not in (*_EXTENSIONS, _FRAGMENT, _AUTHENTICATION):
            break
        if len(data) < at + 8:
            packet.truncated = True
            return
        if kind == _FRAGMENT:
            offset = struct.unpack_from("!H", data, at + 2)[0]
            packet.fragment, first, step = True, not offset & 0xFFF8, 8
        else:
            step = (data[at + 1] + 2) * 4 if kind == _AUTHENTICATION else (data[at + 1] + 1) * 8
        kind, at, size = data[at], at + step, size - step
    _transport(packet, data, at, size, kind, first=first, quoted=quoted)


def _transport(packet: Packet, data: bytes, at: int, size: int, kind: int, *, first: bool, quoted: bool) -> None:
    packet.payload = max(size, 0)
    packet.protocol = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", _ICMP6: "icmp6"}.get(kind) or _PROTOCOLS.get(
        kind, f"ip-{kind}"
    )
    if not first:
        return
    if kind == _TCP:
        _tcp(packet, data, at, size)
    elif kind == _UDP:
        if len(data) < at + _UDP_HEADER.size:
            packet.truncated = True
            return
        packet.source_port, packet.target_port, length, _ = _UDP_HEADER.unpack_from(data, at)
        packet.payload = max((length or size) - 8, 0)
    elif kind in (_ICMP, _ICMP6):
        _icmp(packet, data, at, kind, quoted=quoted)


def _tcp(packet: Packet, data: bytes, at: int, size: int) -> None:
    if len(data) < at + _TCP_HEADER.size:
        # The eight bytes that an ICMP error quotes at least (RFC 792) have the ports and the sequence number.
        packet.truncated = True
        if len(data) >= at + 8:
            packet.source_port, packet.target_port, packet.sequence = struct.unpack_from("!HHI", data, at)
        return
    fields = _TCP_HEADER.unpack_from(data, at)
    packet.source_port, packet.target_port, packet.sequence, packet.acknowledgment, offset, bits, packet.window = (
        fields[:7]
    )
    packet.flags = ",".join(name for bit, name in _FLAGS if bits & bit)
    header = (offset >> 4) * 4
    packet.payload = max(size - header, 0)
    packet.truncated = header < _TCP_HEADER.size
    _tcp_options(packet, data[at + _TCP_HEADER.size : at + header])


def _tcp_options(packet: Packet, options: bytes) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2:  # noqa: PLR2004 - kind and length themselves
            return
        if options[at] == _SACK:
            body = options[at + 2 : at + size]
            packet.sacks = tuple(struct.unpack_from("!II", body, place) for place in range(0, len(body) - 7, 8))
        at += size


def _icmp(packet: Packet, data: bytes, at: int, kind: int, *, quoted: bool) -> None:
    if len(data) < at + 8:
        packet.truncated = True
        return
    packet.kind, packet.code = data[at], data[at + 1]
    packet.mark = struct.unpack_from("!HH", data, at + 4)
    packet.payload = max(packet.payload - 8, 0)
    if packet.kind in (_ICMP_ERRORS if kind == _ICMP else _ICMP6_ERRORS):
        if not quoted:  # an error is never about an error (RFC 1122, 3.2.2)
            packet.quoted = parsed_ip(data[at + 8 :])
    elif kind == _ICMP6 and packet.kind in (135, 136) and len(data) >= at + 24:
        packet.asked = socket.inet_ntop(socket.AF_INET6, data[at + 8 : at + 24])
