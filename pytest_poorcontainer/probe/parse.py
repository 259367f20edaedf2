"""Reading what comes back: segments, ICMP errors with the packet that they quote, echo replies, datagrams.

Whatever arrives, also garbage and lies, gives a :class:`Reply` or None, never an exception: who sends it may be
hostile.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pytest_poorcontainer.probe.packet import checksum, pseudo_header

__all__ = ["ERRORS4", "ERRORS6", "Quote", "Reply", "Segment", "options_of", "parse", "segment_of"]

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
ERRORS4 = {3: "unreachable", 4: "quench", 11: "exceeded", 12: "parameter"}  # RFC 792
ERRORS6 = {1: "unreachable", 2: "too-big", 3: "exceeded", 4: "parameter"}  # RFC 4443
_PORTS = struct.Struct("!HH")
_TCP = struct.Struct("!HHIIBBHHH")
_EXTENSIONS = {0, 43, 60}  # hop-by-hop, routing, destination options: RFC 8200 4
_FRAGMENT = 44
_MAX_EXTENSIONS = 8
_IP4_HEADER, _IP6_HEADER, _TCP_HEADER, _ICMP_HEADER = 20, 40, 20, 8
_FRAGMENTATION_NEEDED = 4
_MSS, _SACK, _TIMESTAMPS = 2, 4, 8
_MPLS = (1, 1)  # class and type of the extension object that has a label stack (RFC 4950 3)
_QUOTE_WITH_EXTENSIONS = 128  # at least so much is quoted before extensions (RFC 4884 4.1)


class Segment(NamedTuple):
    """A TCP header. ``tsval`` and ``tsecr`` are None without the timestamps option, ``mss`` without that one."""

    source_port: int
    target_port: int
    sequence: int
    acknowledged: int
    flags: int
    window: int
    tsval: int | None = None
    tsecr: int | None = None
    mss: int | None = None


class Quote(NamedTuple):
    """What an ICMP error shows of the packet that caused it, as the router saw that packet.

    Fields of the transport header are None where the router did not quote so much. ``check`` is UDP's or ICMP's
    checksum, ``number`` the sequence number of TCP or of an echo request. What is not sound has a checksum that is
    wrong, so that its marks cannot be trusted; where too little is quoted to tell, it counts as sound.
    """

    source: bytes
    target: bytes
    protocol: int
    ident: int
    ttl: int
    tos: int
    source_port: int
    target_port: int
    number: int | None = None
    check: int | None = None
    tsval: int | None = None
    mss: int | None = None
    flags: int | None = None
    acknowledged: int | None = None
    sound_header: bool = True
    sound_segment: bool = True


class Reply(NamedTuple):
    """A packet that came. ``kind`` is "tcp", "udp", "echo", or an ICMP error's (the values of ERRORS4 and ERRORS6).

    ``source`` is packed; ``ttl`` is what was left of it, ``at`` the kernel's time of arrival (seconds since the epoch).
    """

    kind: str
    source: bytes
    ttl: int
    tos: int
    at: float
    raw: bytes
    segment: Segment | None = None
    code: int = 0
    mtu: int = 0
    quote: Quote | None = None
    ident: int = 0
    number: int = 0
    labels: tuple[int, ...] = ()


def options_of(data: bytes) -> dict[int, bytes]:
    """Return the TCP options by their kind; what is malformed ends the list (RFC 9293 3.1)."""
    found: dict[int, bytes] = {}
    place = 0
    while place < len(data) and data[place] != 0:
        if data[place] == 1:
            place += 1
            continue
        if place + 1 >= len(data) or data[place + 1] < 2 or place + data[place + 1] > len(data):  # noqa: PLR2004
            break
        found.setdefault(data[place], data[place + 2 : place + data[place + 1]])
        place += data[place + 1]
    return found


def segment_of(data: bytes) -> Segment | None:
    """Return a TCP header, None when these bytes are none."""
    if len(data) < _TCP_HEADER:
        return None
    source, target, sequence, acknowledged, offset, flags, window, _, _ = _TCP.unpack_from(data)
    length = offset >> 4 << 2
    if length < _TCP_HEADER:
        return None
    options = options_of(data[_TCP_HEADER:length])
    stamps, size = options.get(_TIMESTAMPS, b""), options.get(_MSS, b"")
    tsval, tsecr = struct.unpack("!II", stamps) if len(stamps) == 8 else (None, None)  # noqa: PLR2004
    mss = int.from_bytes(size, "big") if len(size) == 2 else None  # noqa: PLR2004
    return Segment(source, target, sequence, acknowledged, flags, window, tsval, tsecr, mss)


def _skip_extensions(protocol: int, data: bytes, place: int) -> tuple[int, int]:
    """Return protocol and place of what follows the IPv6 extension headers."""
    for _ in range(_MAX_EXTENSIONS):
        if protocol == _FRAGMENT and place + 8 <= len(data):
            protocol, place = data[place], place + 8
        elif protocol in _EXTENSIONS and place + 2 <= len(data):
            protocol, place = data[place], place + 8 + data[place + 1] * 8
        else:
            break
    return protocol, place


def _network(data: bytes) -> tuple[bytes, bytes, int, int, int, int, int] | None:
    """Return source, target, protocol, ident, ttl, tos and where the payload begins; None for what is no IP packet."""
    if len(data) >= _IP4_HEADER and data[0] >> 4 == 4:  # noqa: PLR2004 - the version
        start = (data[0] & 15) << 2
        if start < _IP4_HEADER or len(data) < start:
            return None
        if int.from_bytes(data[6:8], "big") & 0x1FFF:
            return None  # a fragment that is not the first has no ports
        return data[12:16], data[16:20], data[9], int.from_bytes(data[4:6], "big"), data[8], data[1], start
    if len(data) >= _IP6_HEADER and data[0] >> 4 == 6:  # noqa: PLR2004
        protocol, start = _skip_extensions(data[6], data, _IP6_HEADER)
        return data[8:24], data[24:40], protocol, 0, data[7], (data[0] << 4 | data[1] >> 4) & 255, start
    return None


def _quoted(data: bytes) -> Quote | None:
    found = _network(data)
    if found is None:
        return None
    source, target, protocol, ident, ttl, tos, start = found
    body = data[start:]
    if len(body) < 4:  # noqa: PLR2004 - no ports
        return None
    first, second = _PORTS.unpack_from(body)
    about = (source, target, protocol, ident, ttl, tos)
    sound = len(source) == 16 or _sound_header(data[:start])  # noqa: PLR2004 - IPv6 headers have no checksum
    if protocol == TCP:
        number = int.from_bytes(body[4:8], "big") if len(body) >= 8 else None  # noqa: PLR2004
        whole = segment_of(body)
        if whole is None:
            return Quote(*about, first, second, number, sound_header=sound)
        return Quote(
            *about,
            first,
            second,
            number,
            None,
            whole.tsval,
            whole.mss,
            whole.flags,
            whole.acknowledged,
            sound,
            _sound_segment(data, source, target, body, start),
        )
    if len(body) < 8:  # noqa: PLR2004 - every router quotes so much, RFC 792
        return None
    if protocol == UDP:
        return Quote(*about, first, second, None, int.from_bytes(body[6:8], "big"), sound_header=sound)
    if protocol in (ICMP, ICMP6):
        ident, number = _PORTS.unpack_from(body, 4)
        return Quote(*about, ident, ident, number, second, sound_header=sound)
    return Quote(*about, first, second, sound_header=sound)


def _sound_header(header: bytes) -> bool:
    """Whether the checksum of an IPv4 header is right; some routers count the TTL down and leave the checksum."""
    return any(checksum(header[:8] + bytes((ttl,)) + header[9:]) == 0 for ttl in (header[8], 1, 0, 2))


def _sound_segment(data: bytes, source: bytes, target: bytes, body: bytes, start: int) -> bool:
    """Whether the checksum of a segment is right, as far as all of it is quoted."""
    length = int.from_bytes(data[2:4], "big") - start if len(source) == 4 else int.from_bytes(data[4:6], "big")  # noqa: PLR2004
    if length < _TCP_HEADER or length > len(body):
        return True
    return checksum(pseudo_header(source, target, TCP, length) + body[:length]) == 0


def _labels(data: bytes) -> tuple[int, ...]:
    """Return the MPLS labels that a router has added behind the quote (RFC 4884, RFC 4950)."""
    if len(data) < _QUOTE_WITH_EXTENSIONS + 8 or data[_QUOTE_WITH_EXTENSIONS] >> 4 != 2:  # noqa: PLR2004 - the version
        return ()
    place, labels = _QUOTE_WITH_EXTENSIONS + 4, []
    while place + 4 <= len(data):
        length, kind, subtype = struct.unpack_from("!HBB", data, place)
        if length < 4 or place + length > len(data):  # noqa: PLR2004
            break
        if (kind, subtype) == _MPLS:
            labels += [
                int.from_bytes(data[spot : spot + 3], "big") >> 4 for spot in range(place + 4, place + length - 3, 4)
            ]
        place += length
    return tuple(labels)


def _error(kind: str, head: bytes, common: tuple[bytes, int, int, float, bytes], extended: int) -> Reply | None:
    quote = _quoted(head[_ICMP_HEADER:])
    if quote is None:
        return None
    mtu = 0
    code = head[1]
    if kind == "unreachable" and len(common[0]) == 4 and code == _FRAGMENTATION_NEEDED:  # noqa: PLR2004
        kind, mtu = "too-big", int.from_bytes(head[6:8], "big")  # RFC 1191 4
    elif kind == "too-big":
        mtu = int.from_bytes(head[4:8], "big")
    labels = _labels(head[_ICMP_HEADER:]) if extended else ()
    return Reply(kind, *common, code=code, mtu=mtu, quote=quote, labels=labels)


def parse(data: bytes, at: float) -> Reply | None:
    """Return what a whole IP packet, which arrived at time ``at``, says; None for what is no answer to any probe."""
    found = _network(data)
    if found is None:
        return None
    source, _, protocol, _, ttl, tos, start = found
    body = data[start:]
    common = (source, ttl, tos, at, data)
    if protocol == TCP:
        segment = segment_of(body)
        return None if segment is None else Reply("tcp", *common, segment=segment)
    if len(body) < _ICMP_HEADER:
        return None
    if protocol == UDP:
        first, second = _PORTS.unpack_from(body)
        return Reply("udp", *common, ident=first, number=second)
    version4 = len(source) == 4  # noqa: PLR2004
    if protocol != (ICMP if version4 else ICMP6):
        return None
    if body[0] == (0 if version4 else 129):
        ident, number = _PORTS.unpack_from(body, 4)
        return Reply("echo", *common, ident=ident, number=number)
    kind = (ERRORS4 if version4 else ERRORS6).get(body[0])
    if kind is None:
        return None
    return _error(kind, body, common, body[5] if version4 else body[4])
