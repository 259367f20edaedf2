"""Packets of our own making: IPv4 and IPv6 headers, TCP, UDP and echo requests, with their checksums.

Only ``struct``: the command line tool must start in some milliseconds, and scapy's import alone takes 0.3 s.
"""

from __future__ import annotations

import struct

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "checksum",
    "echo",
    "flags_of",
    "flags_text",
    "ip",
    "mss_option",
    "pseudo_header",
    "tcp",
    "timestamp_option",
    "udp",
    "udp_with_checksum",
]

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))  # RFC 9293 3.1, RFC 3168 6.1
_FLAG_NAMES = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
_IP4 = struct.Struct("!BBHHHBBH4s4s")
_IP6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_DONT_FRAGMENT = 0x4000
_VERSION_6 = 6 << 28
_ICMP6 = 58
_IP4_LENGTH = 4


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071) of ``data``."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) >> 1}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def pseudo_header(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    """Return the pseudo header that is summed up with a segment (RFC 9293 3.1, RFC 8200 8.1)."""
    if len(source) == _IP4_LENGTH:
        return source + target + struct.pack("!xBH", protocol, length)
    return source + target + struct.pack("!I3xB", length, protocol)


def ip(
    source: bytes,
    target: bytes,
    protocol: int,
    ttl: int,
    payload: bytes,
    *,
    ident: int = 0,
    tos: int = 0,
    flow: int = 0,
) -> bytes:
    """Return a whole packet; the family is that of the addresses, which are packed.

    ``ident`` is the IPv4 identification (0: the kernel chooses one, ip(7) on IP_HDRINCL), ``flow`` the IPv6 flow label.
    The kernel fills in the IPv4 checksum; ours is there for what is only written to a file. IPv4 packets have
    "don't fragment" set, as the kernel's own TCP segments do.
    """
    if len(source) == _IP4_LENGTH:
        length = 20 + len(payload)
        head = _IP4.pack(0x45, tos, length, ident, _DONT_FRAGMENT, ttl, protocol, 0, source, target)
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload
    return _IP6.pack(_VERSION_6 | tos << 20 | flow, len(payload), protocol, ttl, source, target) + payload


def mss_option(value: int) -> bytes:
    """Return the option that announces the largest segment (RFC 9293 3.7.1)."""
    return struct.pack("!BBH", 2, 4, value)


def timestamp_option(value: int, echo_reply: int = 0) -> bytes:
    """Return SACK-permitted and the timestamps option (RFC 7323 3.2), 12 bytes, as Linux sends the two."""
    return struct.pack("!BBBBII", 4, 2, 8, 10, value, echo_reply)


def tcp(
    source: bytes,
    target: bytes,
    ports: tuple[int, int],
    sequence: int,
    acknowledged: int,
    flags: int,
    options: bytes = b"",
    payload: bytes = b"",
    *,
    window: int = 64240,
) -> bytes:
    """Return a TCP segment; ``options`` must be a multiple of four bytes long."""
    offset = (20 + len(options)) << 2
    head = _TCP.pack(*ports, sequence, acknowledged, offset & 0xF0, flags, window, 0, 0)
    segment = head + options + payload
    check = checksum(pseudo_header(source, target, 6, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", check) + segment[18:]


def udp(source: bytes, target: bytes, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return a UDP datagram."""
    length = 8 + len(payload)
    datagram = struct.pack("!HHHH", *ports, length, 0) + payload
    check = checksum(pseudo_header(source, target, 17, length) + datagram) or 0xFFFF
    return datagram[:6] + struct.pack("!H", check) + datagram[8:]


def udp_with_checksum(source: bytes, target: bytes, ports: tuple[int, int], mark: int, length: int) -> bytes:
    """Return a datagram with ``length`` bytes of payload whose checksum is ``mark``, for 0 < mark < 0xFFFF.

    The checksum is among the eight bytes that every router quotes (RFC 792), and no router balances load by it: the
    payload is made so that it comes out (Paris traceroute's way).
    """
    rest = bytes(length - 2)
    blank = udp(source, target, ports, b"\0\0" + rest)
    (now,) = struct.unpack("!H", blank[6:8])
    # Ones' complement: what the sum has to grow by is the first word of the payload.
    return udp(source, target, ports, struct.pack("!H", (now - mark) % 0xFFFF) + rest)


def echo(source: bytes, target: bytes, ident: int, sequence: int, length: int = 32) -> bytes:
    """Return an ICMP or ICMPv6 echo request whose checksum does not depend on ``sequence``.

    So all probes of a trace are one flow to a router that hashes the first bytes behind the IP header.
    """
    version4 = len(source) == _IP4_LENGTH
    balance = 0xFFFF - sequence
    body = struct.pack("!HHHH", 0, ident, sequence, balance) + bytes(length)
    body = struct.pack("!BB", 8 if version4 else 128, 0) + body
    pseudo = b"" if version4 else pseudo_header(source, target, _ICMP6, len(body))
    return body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]


def flags_of(names: str) -> int:
    """Return the flags that a list like "syn,ece" or "SYN+ACK" names. Raises ValueError with the unknown name."""
    flags = 0
    for name in names.lower().replace("+", ",").replace("|", ",").split(","):
        if name.strip() not in _FLAG_NAMES:
            raise ValueError(f"there is no TCP flag {name.strip()!r}; there are {', '.join(_FLAG_NAMES)}")
        flags |= 1 << _FLAG_NAMES.index(name.strip())
    return flags


def flags_text(flags: int) -> str:
    """Return flags as people write them: "SYN+ACK"."""
    return "+".join(name.upper() for bit, name in enumerate(_FLAG_NAMES) if flags >> bit & 1) or "none"
